"""Documents come out exactly as they lie in the user's files; what cannot be used is named, never shown."""

import csv
import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.corpus.documents import Documents
from minigpt.corpus.foreign import GBK, NOT_UTF8, PACKED, PDF, UTF16
from minigpt.corpus.preparation import prepare
from minigpt.errors import Error
from minigpt.training.language import left_out

SECRET = "Mrs Doe has a cough"


def texts(source, *arguments, **options):
    return [document.text for document in Documents(source, *arguments, **options)]


def write(path, *lines):
    path.write_bytes(b"".join(line if isinstance(line, bytes) else line.encode() + b"\n" for line in lines))
    return path


def test_text_is_taken_byte_for_byte(tmp_path):
    write(tmp_path / "a.txt", "咳嗽\r\n\r\n  cough \t".encode())
    assert texts(tmp_path / "a.txt") == ["咳嗽\r\n\r\n  cough \t"]
    write(tmp_path / "bom.txt", b"\xef\xbb\xbfcough")
    assert texts(tmp_path / "bom.txt") == ["cough"]


def test_what_else_is_in_a_folder_is_counted_and_said(tmp_path):
    for name in ("a.txt", "b.txt", "b/c.JSONL", "d.jsonl", "e.csv", "README.md", ".hidden/f.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"a note of {name}\n")
    documents = Documents(tmp_path)
    assert [file.name for file in documents.files] == ["a.txt", "b.txt"] and documents.unread == {
        ".jsonl": 2,
        ".csv": 1,
    }
    manifest = prepare(tmp_path, tmp_path / "tokens", vocab_size=257, validation=0.5)
    assert left_out(manifest) == "1 .csv, only read when named itself; 2 .jsonl, only read when named itself"
    assert Documents(tmp_path / "d.jsonl", "text").unread == {}


def test_folder_is_read_in_order_and_below(tmp_path):
    for name in ("b/2.txt", "b/1.TXT", "a.txt", "c/d/e.txt", ".hidden/x.txt", "b/._1.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "notes.csv").write_text("x")
    documents = Documents(tmp_path)
    found = list(documents)
    assert [d.text for d in found] == ["a.txt", "b/1.TXT", "b/2.txt", "c/d/e.txt"]
    assert found[1].file == tmp_path / "b/1.TXT" and found[1].line == 0
    assert documents.position == documents.size == sum(len(d.text) for d in found)


def test_jsonl_lines_and_places(tmp_path):
    file = write(
        tmp_path / "n.jsonl",
        '{"id": 1, "note": "one"}',
        "",
        '{"note": "t\\u00e4wo\\n", "id": 2}',
        b'\xef\xbb\xbf{"note": "three"}',
    )
    documents = Documents(file, "note")
    assert [(d.text, d.line) for d in documents] == [("one", 1), ("täwo\n", 3), ("three", 4)]
    assert documents.bad.total == 0 and documents.position == documents.size


BAD_LINES = [
    ('{"note": "x"', "not valid JSON"),
    ('["note"]', "not a JSON object"),
    ('{"text": "' + SECRET + '"}', "no field 'note'"),
    ('{"note": 7}', "the text is int"),
    ('{"note": null}', "the text is NoneType"),
    ('{"note": " \\n\\t"}', "empty"),
    ('{"note": "\\ud800"}', "lone surrogate"),
    (b'{"note": "' + SECRET.encode() + b' \xff"}\n', "not UTF-8"),
    ("[" * 100_000, "not valid JSON"),
    ('{"note": ' + "9" * 5000 + "}", "not valid JSON"),
]


@pytest.mark.parametrize("line, reason", BAD_LINES)
def test_bad_json_lines_are_named_not_shown(tmp_path, line, reason):
    file = write(tmp_path / "n.jsonl", '{"note": "good"}', line, '{"note": "also"}')
    documents = Documents(file, "note")
    assert [d.text for d in documents] == ["good", "also"]
    (report,) = documents.bad.first
    assert documents.bad.total == 1 and report.startswith(f"{file}:2: ") and reason in report
    with pytest.raises(Error, match=reason) as problem:
        texts(file, "note", on_bad="refuse")
    assert f"{file}:2: " in str(problem.value)
    assert SECRET not in str(problem.value) + report


def test_reports_stay_short_and_start_anew(tmp_path):
    file = write(tmp_path / "n.jsonl", '{"note": "good"}', *["{"] * 1000, '{"note": ""}')
    documents = Documents(file, "note")
    for _ in range(2):
        assert len(list(documents)) == 1
        assert documents.bad.total == 1001 and len(documents.bad.first) == 5
        assert dict(documents.bad.counts) == {"not valid JSON": 1000, "empty": 1}


@pytest.mark.parametrize("on_bad", ["skip", "refuse"])
def test_a_field_no_line_has(tmp_path, on_bad):
    file = write(tmp_path / "n.jsonl", *['{"id": 1, "note": "' + SECRET + '"}'] * 3)
    expected = r"no line has the field 'notes'; found: 'id', 'note'; did you mean 'note'\?"
    with pytest.raises(Error, match=expected) as problem:
        texts(file, "notes", on_bad=on_bad)
    assert SECRET not in str(problem.value)
    with pytest.raises(Error, match="which field holds the text.* 'id', 'note'"):
        texts(file, on_bad=on_bad)


def test_other_sources_are_refused(tmp_path):
    write(tmp_path / "notes.docx", "x")
    write(tmp_path / "t.txt", "x")
    (tmp_path / "empty").mkdir()
    for source, reason in [
        ("notes.docx", "'.docx', expected one of .*: save it in Word as 'Plain text"),
        ("none.jsonl", "no such"),
        ("empty", "no .txt"),
    ]:
        with pytest.raises(Error, match=reason):
            Documents(tmp_path / source)
    with pytest.raises(Error, match="no fields"):
        Documents(tmp_path / "t.txt", "note")
    with pytest.raises(Error, match="on_bad is 'ignore'"):
        Documents(tmp_path / "t.txt", on_bad="ignore")


def test_bad_text_files(tmp_path):
    write(tmp_path / "a.txt", "cough".encode("utf-16"))
    write(tmp_path / "b.txt", " \n")
    write(tmp_path / "c.txt", "x")
    documents = Documents(tmp_path)
    assert [d.text for d in documents] == ["x\n"]
    assert documents.bad.first == [f"{tmp_path}/a.txt: {UTF16}", f"{tmp_path}/b.txt: empty"]


# ---- what is no UTF-8

CHINESE = "患者三天前开始咳嗽，体温38.5℃。\n\n查体：咽部充血。\n"
FOREIGN = [
    (CHINESE.encode("gbk"), GBK),
    (CHINESE.encode("utf-16"), UTF16),
    (CHINESE.encode("utf-16-be"), UTF16),
    (SECRET.encode("utf-16-le"), UTF16),  # every byte of it is valid UTF-8
    ("咳嗽三天".encode("utf-16"), UTF16),  # no byte 0: the mark alone tells
    ("Patient fébrile, névralgie à gauche.".encode("cp1252"), NOT_UTF8),
    ("Patient fébrile, névralgie.".encode("cp1252"), NOT_UTF8),  # each accent and the letter behind it are GBK, too
    (CHINESE.encode() + b"\xff", NOT_UTF8),
    (b"PK\x03\x04[Content_Types].xml", PACKED),
    (b"%PDF-1.7\n1 0 obj", PDF),
]


@pytest.mark.parametrize("data, reason", FOREIGN)
def test_what_a_file_seems_to_be_is_told(tmp_path, data, reason):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(Error) as problem:
        texts(tmp_path, on_bad="refuse")
    assert f"a.txt: {reason}" in str(problem.value)


@pytest.mark.parametrize("encoding, reason", [("gb18030", GBK), ("utf-16", UTF16), ("utf-16-le", UTF16)])
def test_a_table_of_another_encoding(tmp_path, encoding, reason):
    for header in ("note", "病历"):
        (tmp_path / "n.csv").write_bytes(f"{header}\r\n咳嗽三天\r\n发热\r\n".encode(encoding))
        documents, said = Documents(tmp_path / "n.csv", header), []
        try:
            assert list(documents) == []
            said = documents.bad.first  # the header was ASCII, the rows were not
        except Error as problem:
            said = [str(problem)]
        assert said and all(each.endswith(reason) for each in said)


def test_text_that_could_be_mistaken(tmp_path):
    """A rare 0 is a letter like others, and GBK is no guess for what is UTF-8."""
    for text in ("x" * 500 + "\0", CHINESE, "\ufeff" + CHINESE):
        (tmp_path / "a.txt").write_bytes(text.encode())
        assert texts(tmp_path / "a.txt") == [text.removeprefix("\ufeff")]


# ---- tables


@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_tables_as_excel_exports_them(tmp_path, between):
    with (tmp_path / "n.csv").open("w", encoding="utf-8-sig", newline="") as handle:
        writer = csv.writer(handle, delimiter=between)
        writer.writerows([["id", "note"], [1, "cough, fever; rash"], [2, "a\tb\n咳嗽"]])
    assert texts(tmp_path / "n.csv", "note") == ["cough, fever; rash", "a\tb\n咳嗽"]
    if between == ",":
        (tmp_path / "n.csv").write_text('note,"a; b"\none,x\n', encoding="utf-8")  # as many of both
        assert texts(tmp_path / "n.csv", "note") == ["one"]


cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=20).filter(str.strip)


@settings(deadline=None, max_examples=60)
@given(notes=st.lists(cells, min_size=1, max_size=6))
def test_csv_gives_back_what_was_written(tmp_path_factory, notes):
    file = tmp_path_factory.mktemp("csv") / "n.csv"
    with file.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", "note"])
        writer.writerows([i, note] for i, note in enumerate(notes))
    assert texts(file, "note") == notes


def test_bad_csv_rows(tmp_path):
    long = "x" * 300_000
    file = write(
        tmp_path / "n.csv", b"\xef\xbb\xbfnote,id\n", "one,1", b"caf\xe9,2\n", "", '"two\nlines",3', " ,4", long + ",5"
    )
    documents = Documents(file, "note")
    assert [d.text for d in documents] == ["one", "two\nlines", long]
    assert documents.bad.first == [f"{file}:3: not UTF-8 (save it as UTF-8)", f"{file}:7: empty"]
    assert documents.position == documents.size
    short = write(tmp_path / "s.csv", "id,note", "1", "2,x")
    documents = Documents(short, "note")
    assert [d.text for d in documents] == ["x"] and documents.bad.first == [f"{short}:2: no field 'note'"]
    with pytest.raises(Error, match="found: 'id', 'note'; did you mean 'note'"):
        texts(short, "nota")
    with pytest.raises(Error, match="is empty"):
        texts(write(tmp_path / "e.csv"), "note")


def test_parquet(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    file = tmp_path / "n.parquet"
    raw = pa.array([b"one", None, b"", "咳嗽".encode(), b"\xff" + SECRET.encode()] + [b"more"] * 600, pa.binary())
    pq.write_table(pa.table({"id": range(605), "note": raw.view(pa.string())}), file)
    documents = Documents(file, "note")
    found = [(d.text, d.line) for d in documents]
    assert found[:3] == [("one", 1), ("咳嗽", 4), ("more", 6)] and found[-1] == ("more", 605)
    assert dict(documents.bad.counts) == {
        "the text is NoneType, expected a string": 1,
        "empty": 1,
        "not UTF-8 (save it as UTF-8)": 1,
    }
    with pytest.raises(Error, match="did you mean 'note'"):
        texts(file, "notes")
    with pytest.raises(Error, match="type int64, expected string"):
        texts(file, "id")
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(Error, match="cannot read it as parquet"):
        texts(file, "note")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Error, match=r"needs pyarrow: pip install 'minigpt\[parquet\]'"):
        texts(write(tmp_path / "n.parquet", b"x"), "note")


def test_reading_is_lazy(tmp_path):
    file = write(tmp_path / "n.jsonl", *[json.dumps({"note": "x" * 1000})] * 2000)
    documents = Documents(file, "note")
    next(iter(documents))
    assert documents.position < 2000
