"""--where field=value: the records it names and no others, of every kind of file, up to the tokens of a run."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from minigpt.cli import dump, parse
from minigpt.corpus.documents import Documents
from minigpt.corpus.preparation import prepare
from minigpt.corpus.tokens import load_tokens
from minigpt.errors import Error
from minigpt.training import compose
from minigpt.training.options import DataConfig, RunConfig, ShapeConfig

ROOT = Path(__file__).parents[1]
RECORDS = [
    {"note": "a", "type": "radiology", "number": 1},
    {"note": "b", "type": "letter", "number": 1.5},
    {"note": "c", "type": "radiology=2", "number": 10**20},
    {"note": "d", "number": 7},
    {"note": "e", "type": "", "number": -3},
]
TEXT = {  # as every kind of file has them
    ("type=radiology",): "a",
    ("type!=radiology",): "bcde",
    ("type=radiology=2",): "c",
    ("type!=radiology", "type!=letter"): "cde",
    ("type=radiology", "number=1"): "a",
    ("type=radiology", "type=letter"): "",
    ("type=radio",): "",
    ("type=Radiology",): "",
    ("type=",): "e",
    ("note=a",): "a",
    ("note!=a", "number!=7"): "bce",
    ("number=1",): "a",
    ("number=1.5",): "b",
    ("number=-3",): "e",
}


def jsonl(path: Path, records=RECORDS) -> Path:
    file = path / "notes.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def table(path: Path) -> Path:
    file = path / "notes.csv"
    with file.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["number", "note", "type"])
        for record in RECORDS:  # a row may end early: then the field is missing
            writer.writerow([record["number"], record["note"], *([record["type"]] if "type" in record else [])])
    return file


def parquet(path: Path) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {name: [record.get(name) for record in RECORDS] for name in ("note", "type")}
    columns["number"] = ["1", "1.5", str(10**20), "7", "-3"]  # a column has one type
    pq.write_table(pa.table(columns), path / "notes.parquet")
    return path / "notes.parquet"


def read(file: Path, *where: str, **options) -> str:
    return "".join(document.text for document in Documents(file, "note", where=where, **options))


@pytest.mark.parametrize("where", TEXT, ids=" ".join)
@pytest.mark.parametrize("make", [jsonl, table, parquet])
def test_the_same_records_of_every_kind_of_file(tmp_path, make, where):
    assert read(make(tmp_path), *where) == TEXT[where]


def test_numbers_of_a_parquet_column(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    columns = {"note": list("abcd"), "whole": [1, 2, None, 1], "real": [1.0, 2.5, None, 1.0]}
    columns["kind"] = pa.array(["x", "y", "x", "x"]).dictionary_encode()
    pq.write_table(pa.table(columns), file := tmp_path / "n.parquet")
    for where, expected in (("whole=1", "ad"), ("whole!=1", "bc"), ("real=2.5", "b"), ("kind=x", "acd")):
        assert read(file, where) == expected


def test_lines_and_places_are_those_of_the_whole_file(tmp_path):
    for make in (jsonl, table, parquet):
        documents = Documents(file := make(tmp_path), "note", where=("number=7",))
        first = 2 if make is table else 1  # the header is a line
        assert [(d.text, d.file, d.line) for d in documents] == [("d", file, first + 3)]
        assert documents.position == documents.size


def test_what_is_left_out_is_not_bad_and_what_is_wanted_may_be(tmp_path):
    records = [{"note": 7, "type": "x"}, {"type": "x"}, {"note": "good", "type": "y"}, {"note": "", "type": "y"}]
    documents = Documents(file := jsonl(tmp_path, records), "note", where=("type=y",))
    assert [d.text for d in documents] == ["good"] and documents.bad.first == [f"{file}:4: empty"]
    with pytest.raises(Error, match=":4: empty"):
        read(file, "type=y", on_bad="refuse")
    assert read(jsonl(tmp_path, records[:3]), "type=y", on_bad="refuse") == "good"


@pytest.mark.parametrize("make", [jsonl, table, parquet])
def test_a_field_no_record_has_is_named_with_the_nearest(tmp_path, make):
    for where in (("typ=radiology",), ("type=radiology", "typ!=letter")):
        with pytest.raises(Error, match=r"no line has the field 'typ'; found: .*; did you mean 'type'\?"):
            read(make(tmp_path), *where)


@pytest.mark.parametrize("bad", ["", "type", "=radiology", "!=radiology", "!", "="])
def test_malformed_conditions(tmp_path, bad):
    with pytest.raises(Error, match="expected field=value or field!=value, such as type=radiology"):
        Documents(jsonl(tmp_path), "note", where=("type=letter", bad))


def test_text_files_have_no_fields(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    for source in (tmp_path / "a.txt", tmp_path):
        with pytest.raises(Error, match="text files have no fields: leave out 'type=radiology'"):
            Documents(source, where=("type=radiology",))


def test_nothing_left_is_an_error_and_writes_nothing(tmp_path):
    with pytest.raises(Error, match="no usable document"):
        prepare(jsonl(tmp_path), tmp_path / "out", "note", where=("type=nobody",), progress=False)
    assert not (tmp_path / "out").exists()


def notes(path: Path) -> Path:
    kinds = ("note", "letter")
    records = [{"text": f"{kinds[i % 2]} number {i}, a cough", "kind": kinds[i % 2]} for i in range(60)]
    return jsonl(path, records)


def test_other_conditions_make_other_tokens_in_the_same_place(tmp_path):
    """What was prepared before is taken again only if the conditions, too, are the same."""
    counts = []
    for where in ((), ("kind=note",), ("kind!=note",), ("kind!=note",)):
        manifest = prepare(notes(tmp_path), tmp_path / "out", "text", vocab_size=300, where=where, progress=False)
        tokens = load_tokens(tmp_path / "out")
        texts = "".join(tokens.tokenizer().decode(list(map(int, split))) for split in (tokens.train, tokens.val))
        counts.append((texts.count("note"), texts.count("letter")))
        assert manifest["request"]["where"] == list(where)
    assert counts == [(30, 30), (30, 0), (0, 30), (0, 30)]


def test_train_trains_on_what_it_names(tmp_path):
    data = DataConfig(data=notes(tmp_path), field="text", where=("kind=letter",), vocab_size=300)
    tokens, tokenizer = compose.open_data(data, ShapeConfig(), RunConfig(out=tmp_path / "run"))
    text = tokenizer.decode(list(map(int, tokens.train)))
    assert "letter" in text and "note" not in text


def test_prepare_on_the_command_line(tmp_path):
    def command(*words):
        words = [sys.executable, ROOT / "data/prepare.py", notes(tmp_path), tmp_path / "out", "--field", "text", *words]
        return subprocess.run(list(map(str, words)), capture_output=True, text=True, cwd=tmp_path)

    done = command("--where", "kind=note", "--where", "text!=note number 0, a cough", "--vocab-size", 300)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["train"]["documents"] + manifest["val"]["documents"] == 29
    done = command("--where", "kind")
    assert done.returncode == 2 and "where is 'kind'" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("value", ["a=1,b=2", "title=Smith, John", "a=[1]", 'a="q"', "a: b=007", "主诉=咳嗽", "a={b"])
def test_values_pass_the_command_line_and_the_config_of_a_run_as_they_are(tmp_path, value):
    describe = {"prog": "x", "description": "", "epilog": ""}
    (data,) = parse(DataConfig, args=["--where", value, "--where", "type!=x"], **describe)
    assert data.where == (value, "type!=x")
    (tmp_path / "train.yaml").write_text(dump(data))
    assert parse(DataConfig, args=["--config", str(tmp_path / "train.yaml")], **describe) == [data]
