"""Text as users bring it, and what is made of it: notes, records, tokens, tokenizers, prompts, templates, settings."""

import csv
import io
import json
from pathlib import Path

from minigpt import cli
from minigpt.corpus.documents import Documents
from minigpt.corpus.labelled import Labels
from minigpt.corpus.preparation import prepare
from minigpt.corpus.records import Dialogues, Instructions, RecordConfig
from minigpt.corpus.tokens import load_tokens
from minigpt.figures.gallery import Subject as Run
from minigpt.generation.prompts import read_prompts
from minigpt.prompting.template import read_templates
from minigpt.tokenizer import Tokenizer
from minigpt.training.command import Options
from tests.faults.damage import BYTES, JSON, TEXT, YAML
from tests.faults.fuzz import Subject

NOTES = [
    "cough and fever for three days",
    "患者，女，咳嗽三天。",
    'denies "chest pain",\nno allergies',
    "发热 38.5 ℃",
    "🙂 well",
]
PROBE = "cough 患者 🙂 38.5\n <|endoftext|>"


def jsonl(*records) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def file(name: str, data: bytes):
    return lambda folder: (folder / name).write_bytes(data)


def documents(name: str, field: str | None = "note"):
    def read(folder: Path):
        found = Documents(folder / name, field)
        return [document.text for document in found], found.bad.total, dict(found.bad.counts)

    return read


def lines_say(folder: Path, found) -> bool:
    """Each document is the note of a line, in their order, as the standard library reads it; no line is unaccounted."""
    said, lines = [], [line for line in (folder / "n.jsonl").read_bytes().split(b"\n") if line.strip()]
    for line in lines:
        try:
            said.append(json.loads(line)["note"])
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    remaining = iter(said)
    return all(text in remaining for text in found[0]) and len(found[0]) + found[1] == len(lines)


def text_says(folder: Path, found) -> bool:
    return found[0] in ([(folder / "n.txt").read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")], [])


def table_csv() -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([["id", "note"], *enumerate(NOTES)])
    return text.getvalue().encode()


def parquet(folder: Path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"id": list(range(len(NOTES))), "note": NOTES}), folder / "n.parquet")


def records(kind, name: str):
    def read(folder: Path):
        found = kind(folder / name)
        return [repr(document.text) for document in found], found.bad.total

    return read


def tokens(folder: Path):
    source = folder.parent / "source.jsonl"
    source.write_bytes(jsonl(*({"note": note} for note in NOTES * 4)))
    prepare(source, folder / "tokens", field="note", vocab_size=300, validation=0.3)
    for path in (folder / "tokens").iterdir():
        path.rename(folder / path.name)
    (folder / "tokens").rmdir()


def read_tokens(folder: Path):
    found = load_tokens(folder, verify=True)
    tokenizer = found.tokenizer()
    return found.train.tolist(), found.val.tolist(), tokenizer.encode(PROBE), tokenizer.decode(found.val)


def tokenizer(folder: Path):
    Tokenizer.train(NOTES * 3, vocab_size=280).save(folder)


def gpt2_files(folder: Path):
    tokenizer(folder)
    model = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    vocab = model["model"]["vocab"] | {each["content"]: each["id"] for each in model["added_tokens"]}
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["model"]["merges"]]
    (folder / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").unlink()


def read_tokenizer(folder: Path):
    """Its ids for a text; and whatever it learned, text comes back."""
    found = Tokenizer.load(folder)
    ids = found.encode(PROBE)
    if found.decode(ids) != PROBE:
        raise AssertionError("text is lost")
    return ids, found.eot, found.vocab_size, found.token_lengths().tolist()


TEMPLATES = b"""- name: short
  question: "Note: {text}\\nType:"
  answer: " {answer}"
- question: "{text}"
  answer: "{answer}"
"""
SETTINGS = b"""# a run
n_layers: 2
d_model: 64
lr: 0.001
out: runs/x
dropout: 0.1
minutes: 5
overwrite: true
"""


def settings(name: str):
    def read(folder: Path):
        kinds = [kind for kind in Options.__annotations__.values() if kind is not object]
        return repr(cli.parse(*kinds, prog="train.py", args=["--config", str(folder / name)]))

    return read


def shape(folder: Path):
    """The settings of a run, as its pictures read them."""
    return repr(Run(folder).settings)


INSTRUCTIONS = jsonl(*({"instruction": "Translate:", "input": note, "output": note[::-1]} for note in NOTES))
DIALOGUES = jsonl(
    *({"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": a}]} for a in NOTES),
    {"messages": ["a", "b"]},
)
LABELS = jsonl(*({"note": note, "kind": "ab"[i % 2], "other": note} for i, note in enumerate(NOTES)))


def notes() -> list[Subject]:
    each = [{"note": note, "n": i} for i, note in enumerate(NOTES)]
    return [
        Subject("notes, .jsonl", {"n.jsonl": TEXT}, file("n.jsonl", jsonl(*each)), documents("n.jsonl"), lines_say),
        Subject("notes, .csv", {"n.csv": TEXT}, file("n.csv", table_csv()), documents("n.csv")),
        Subject("notes, .txt", {"n.txt": TEXT}, file("n.txt", "\n".join(NOTES).encode()), documents("n.txt", None),
                text_says),
        Subject("notes, .parquet", {"n.parquet": BYTES}, parquet, documents("n.parquet")),
        Subject("instructions", {"n.jsonl": TEXT}, file("n.jsonl", INSTRUCTIONS),
                records(lambda path: Instructions(path, RecordConfig()), "n.jsonl")),
        Subject("dialogues", {"n.jsonl": TEXT}, file("n.jsonl", DIALOGUES),
                records(lambda path: Dialogues(path, RecordConfig()), "n.jsonl")),
        Subject("labelled notes", {"n.jsonl": TEXT}, file("n.jsonl", LABELS),
                records(lambda path: Labels(path, "classify", "note", "kind", ()), "n.jsonl")),
    ]  # fmt: skip


def made() -> list[Subject]:
    parts = {"manifest.json": JSON, "train.bin": BYTES, "val.bin": BYTES, "tokenizer.json": JSON}
    prompts = jsonl(*({"prompt": note} for note in NOTES))
    return [
        Subject("tokens and their manifest", parts, tokens, read_tokens),
        Subject("a tokenizer", {"tokenizer.json": JSON, "tokenizer_config.json": JSON}, tokenizer, read_tokenizer),
        Subject("vocab.json and merges.txt", {"vocab.json": JSON, "merges.txt": TEXT}, gpt2_files, read_tokenizer),
        Subject("prompts, .jsonl", {"p.jsonl": TEXT}, file("p.jsonl", prompts), lambda f: read_prompts(f / "p.jsonl")),
        Subject("prompts, .txt", {"p.txt": TEXT}, file("p.txt", "\n".join(NOTES).encode()),
                lambda f: read_prompts(f / "p.txt")),
        Subject("templates, .yaml", {"t.yaml": YAML}, file("t.yaml", TEMPLATES),
                lambda f: read_templates(f / "t.yaml")),
        Subject("settings, .yaml", {"c.yaml": YAML}, file("c.yaml", SETTINGS), settings("c.yaml")),
        Subject("settings, .json as .yaml", {"c.yaml": JSON}, file("c.yaml", b'{"n_layers": 2, "lr": 0.001}'),
                settings("c.yaml")),
        Subject("settings, .toml", {"c.toml": TEXT}, file("c.toml", b'n_layers = 2\nlr = 0.001\nout = "runs/x"\n'),
                settings("c.toml")),
        Subject("a run's train.yaml", {"train.yaml": YAML}, file("train.yaml", SETTINGS), shape),
    ]  # fmt: skip
