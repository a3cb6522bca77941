"""Files as users have them -> documents: .txt (one, or a folder of them), .jsonl, .csv and .parquet, streamed.

A line that cannot be used is reported by file and line, never by content: these are clinical notes.
"""

import csv
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

from minigpt.corpus.foreign import BOM, advice, decoded
from minigpt.corpus.usable import SURROGATE, Bad, Document, Unusable, usable
from minigpt.errors import Error, nearest

_LARGEST_CELL = 2**26  # bytes; an unclosed quote would otherwise read the whole rest of a .csv as one note


class Documents:
    """The documents of `source`, one pass each time it is iterated; memory holds one document.

    source: a .txt file (one document), a folder (every .txt below it, in order of path, dot files left out), or a
    .jsonl, .csv (a header, then rows; commas, semicolons or tabs between) or .parquet file, where `field` names the
    text. Text is taken as it is, newlines too; only a byte order mark goes. Bad lines (no JSON, no such field, no
    text, not UTF-8, blank) are left out with on_bad="skip" and are an Error with on_bad="refuse"; after a pass `bad`
    says which they were. Of records, `where` takes those whose fields are as it says: ("type=radiology",),
    ("language=zh", "type!=dialogue"). During a pass `position` counts the bytes read of `size`. `unread` says how many
    files of the other kinds are in the folder, too.

    Errors: no such file, a kind it does not read, a field that no line has (with the nearest one), a damaged file.
    """

    def __init__(self, source: str | Path, field: str | None = None, on_bad: str = "skip", where: tuple[str, ...] = ()):
        self.source, self.field, self.on_bad = Path(source), field, on_bad
        self.where = [_condition(text) for text in where]
        self.needed = [(field,), *((name,) for name, _, _ in self.where)]  # of each, some line has one
        if on_bad not in ("skip", "refuse"):
            raise Error(f"on_bad is {on_bad!r}, expected 'skip' or 'refuse'")
        self.files, self._read, self.unread = _kind(self.source)
        if self._read is _read_texts and (field is not None or where):
            raise Error(f"{source}: text files have no fields: leave out {repr(field) if field else where[0]!r}")
        self.size = sum(file.stat().st_size for file in self.files)
        self.bad, self.position = Bad(), 0

    def __iter__(self) -> Iterator[Document]:
        self.bad, self.position = Bad(), 0
        for file, line, text in self._read(self):
            if text is _UNWANTED:
                continue
            document = Document(text, file, line)
            if isinstance(text, Unusable):
                self.leave_out(document, text.reason)
            else:
                yield document

    def take(self, record: dict) -> "str | Unusable":
        """What of a record is the document; readers of other records answer otherwise."""
        return usable(record[self.field]) if self.field in record else Unusable(f"no field {self.field!r}")

    def leave_out(self, document: Document, reason: str) -> None:
        """Count it as bad; with on_bad="refuse", an Error."""
        if self.on_bad == "refuse":
            raise Error(f"{document.place}: {reason}: mend it, or leave such lines out with on_bad 'skip'")
        self.bad.add(document.place, reason)

    def wants(self, record: dict) -> bool:
        """Whether a record's fields are as `where` says; a number is compared as it is printed."""
        return all((str(record.get(name)) == value) == equal for name, equal, value in self.where)


def _condition(text: str) -> tuple[str, bool, str]:
    """ "type=radiology" -> ("type", True, "radiology"); "type!=radiology" -> ("type", False, "radiology")."""
    name, sign, value = text.partition("=")
    if not sign or not name.removesuffix("!"):
        raise Error(f"where is {text!r}, expected field=value or field!=value, such as type=radiology")
    return name.removesuffix("!"), not name.endswith("!"), value


_UNWANTED = Unusable("left out by where")


def _kind(source: Path) -> tuple[list[Path], Callable, dict[str, int]]:
    """The files to read, by what, and how many there are beside them of other kinds."""
    readers = {".txt": _read_texts, ".jsonl": _read_jsonl, ".csv": _read_csv, ".parquet": _read_parquet}
    if source.is_dir():
        files = [f for f in source.rglob("*") if f.suffix.lower() in readers and f.is_file()]
        # A Mac leaves a "._note.txt" beside each note on a foreign disk.
        files = [f for f in files if not any(part.startswith(".") for part in f.relative_to(source).parts)]
        kinds = Counter(sorted(f.suffix.lower() for f in files))
        if not kinds.pop(".txt", 0):
            raise Error(f"{source}: no .txt file in this folder: for other kinds name the file itself")
        texts = sorted((f for f in files if f.suffix.lower() == ".txt"), key=Path.as_posix)
        return texts, _read_texts, dict(kinds)
    if not source.is_file():
        raise Error(f"{source}: no such file or folder")
    if source.suffix.lower() not in readers:
        kind = repr(source.suffix) if source.suffix else "a file without ending"
        raise Error(f"{source}: cannot read {kind}, expected one of {', '.join(readers)}{advice(source)}")
    return [source], readers[source.suffix.lower()], {}


def _read_texts(documents: Documents) -> Iterator[tuple]:
    for file in documents.files:
        with _open(file) as handle:
            data = handle.read()
        documents.position += len(data)
        yield file, 0, usable(text) if isinstance(text := decoded(data), str) else text


def _read_jsonl(documents: Documents) -> Iterator[tuple]:
    (file,), fields = documents.files, _Fields(documents)
    with _open(file) as lines:
        for number, line in enumerate(lines, 1):
            documents.position += len(line)
            if line.strip():
                text = _json_text(line, documents, fields)
                if documents.on_bad == "refuse":
                    fields.check_exists()
                yield file, number, text
    fields.check_exists()


def _json_text(line: bytes, documents: Documents, fields: "_Fields") -> object:
    text = decoded(line)
    if isinstance(text, Unusable):
        return text
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return Unusable("not valid JSON")
    if not isinstance(record, dict):
        return Unusable("not a JSON object")
    fields.saw(record)
    if not documents.wants(record):
        return _UNWANTED
    return documents.take(record)


def _read_csv(documents: Documents) -> Iterator[tuple]:
    (file,) = documents.files
    csv.field_size_limit(max(csv.field_size_limit(), _LARGEST_CELL))
    with _open(file) as raw:
        # surrogateescape: a byte that is no UTF-8 makes one bad cell instead of ending the pass.
        lines = _counted_lines(raw, documents)
        first = next(lines, "")
        if isinstance(problem := decoded(first.encode("utf-8", "surrogateescape")), Unusable):
            raise Error(f"{file}: {problem.reason}")
        # Where a comma is the decimal point, Excel parts by semicolons; others export tabs.
        rows = csv.reader(chain([first] if first else [], lines), delimiter=max(",;\t", key=first.count))
        header, fields = None, _Fields(documents)
        while True:
            try:
                row = next(rows)
            except StopIteration:
                break
            except csv.Error:
                yield file, rows.line_num, Unusable("not valid CSV")
                continue
            if header is None:
                header = row
                fields.saw(header)
                fields.check_exists()
                continue
            record = dict(reversed(list(zip(header, row, strict=False))))  # of two columns of a name the first
            if row and documents.wants(record):
                text = documents.take(record)
                yield file, rows.line_num, _why(row) if text == Unusable(SURROGATE) else text
    if header is None:
        raise Error(f"{file}: is empty, expected a header line and rows")


def _why(row: list[str]) -> str | Unusable:
    """What a row with a byte that is no UTF-8 seems to be."""
    return decoded(",".join(row).encode("utf-8", "surrogateescape"))


def _open(file: Path):
    try:
        return file.open("rb")
    except OSError as problem:
        raise Error(f"{file}: cannot read it: {problem.strerror}") from None


def _counted_lines(raw: Iterable[bytes], documents: Documents) -> Iterator[str]:
    for number, line in enumerate(raw):
        documents.position += len(line)
        yield (line.removeprefix(BOM) if number == 0 else line).decode("utf-8", "surrogateescape")


def _read_parquet(documents: Documents) -> Iterator[tuple]:
    (file,) = documents.files
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise Error(f"{file}: reading .parquet needs pyarrow: pip install 'minigpt[parquet]', or use .jsonl") from None
    try:
        table = pq.ParquetFile(file)
        fields = _Fields(documents)
        fields.saw(table.schema_arrow.names)
        fields.check_exists()
        kind = table.schema_arrow.field(documents.field).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise Error(f"{file}: field {documents.field!r} is of type {kind}, expected string")
        row, step = 0, documents.size / max(table.metadata.num_rows, 1)
        others = list(dict.fromkeys(name for alike in documents.needed for name in alike if name != documents.field))
        for batch in table.iter_batches(batch_size=256, columns=[documents.field, *others]):
            # As bytes: pyarrow does not check that its strings are UTF-8.
            texts = batch.column(documents.field).cast(pa.large_binary()).to_pylist()
            for data, record in zip(texts, batch.select(others).to_pylist(), strict=True):
                row += 1
                documents.position = int(row * step)
                record[documents.field] = text = data if data is None else decoded(data)
                if documents.wants(record):
                    yield file, row, text if isinstance(text, Unusable) else documents.take(record)
    except (pa.ArrowException, OSError) as problem:
        raise Error(f"{file}: cannot read it as parquet: {str(problem).splitlines()[0]}") from None


class _Fields:
    """The field names met so far, for the sentence that says which one was meant."""

    def __init__(self, documents: Documents):
        self.file, self.field, self.names = documents.files[0], documents.field, {}
        self.needed = documents.needed

    def saw(self, names: Iterable[str]) -> None:
        if len(self.names) < 100 or any(name in names for alike in self.needed for name in alike):
            self.names.update(dict.fromkeys(names))
        if self.field is None:
            raise Error(f"{self.file}: which field holds the text? Name it with --field; found: {self._listed()}")

    def check_exists(self) -> None:
        for name, *others in self.needed if self.names else ():
            if not any(each in self.names for each in (name, *others)):
                hint = nearest(name, map(str, self.names))
                hint = f"; {hint}" if hint.startswith("did") else ""
                raise Error(f"{self.file}: no line has the field {name!r}; found: {self._listed()}{hint}")

    def _listed(self) -> str:
        return ", ".join(map(repr, list(self.names)[:20])) or "none"
