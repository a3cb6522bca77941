"""The facts of the dataset card, measured on the files themselves."""

import hashlib
import json
import re
import zlib

from .conditions import CONDITIONS

TYPES = ("admission", "discharge", "radiology", "consultation", "dialogue")


def size(text):
    return len(text.encode("utf-8"))


def grouped(records, keys):
    """Markdown rows: one a combination of `keys`, with records and bytes of text."""
    found = {}
    for r in records:
        key = tuple(r[k] for k in keys)
        text = r["text"] if "text" in r else r["prompt"] + r["response"]
        count, total = found.get(key, (0, 0))
        found[key] = (count + 1, total + size(text))
    return [f"| {' | '.join(key)} | {count:,} | {total:,} |" for key, (count, total) in sorted(found.items())]


def bits_per_byte(data):
    """How small zlib makes it, in bits for each byte: below this, a model has learned more than repetition."""
    return 8 * len(zlib.compress(data, 9)) / len(data)


def table(files):
    """The measured part of data/README.md; `files` is {name: bytes}."""
    notes, pairs = ([json.loads(line) for line in files[name].decode("utf-8").splitlines()] for name in files)
    texts = {lang: "\n".join(n["text"] for n in notes if n["language"] == lang) for lang in ("en", "zh")}
    words = len(set(re.findall(r"[a-z]+", texts["en"].lower())))
    characters = len(set(re.findall(r"[\u4e00-\u9fff]", texts["zh"])))
    share = size(texts["en"]) / (size(texts["en"]) + size(texts["zh"]))
    lines = ["| file | records | bytes | zlib -9, bits per byte | sha256 |", "|---|---:|---:|---:|---|"]
    for name, records in zip(files, (notes, pairs), strict=True):
        data = files[name]
        digest = hashlib.sha256(data).hexdigest()
        lines.append(f"| `{name}` | {len(records):,} | {len(data):,} | {bits_per_byte(data):.2f} | `{digest}` |")
    lines += [
        "",
        "| language | type | notes | bytes of text |",
        "|---|---|---:|---:|",
        *grouped(notes, ("language", "type")),
    ]
    lines += [
        "",
        "| language | task | pairs | bytes of text |",
        "|---|---|---:|---:|",
        *grouped(pairs, ("language", "task")),
    ]
    lines += [
        "",
        f"- {len(CONDITIONS)} conditions in {len({c.specialty for c in CONDITIONS})} specialties, "
        f"{len({n['id'].rsplit('-', 1)[0] for n in notes}):,} invented patients",
        f"- {100 * share:.1f} % of the bytes of note text are English",
        f"- {words:,} distinct English words (letters only, lower case) and {characters:,} distinct Chinese characters",
    ]
    return "\n".join(lines)
