"""Files that are not what Documents reads: what are they probably, and how does one make them so?

Nothing is converted by guess: a wrong guess would teach the model letters that no note has. The guess is told, with
the way to the right file.
"""

from pathlib import Path

from minigpt.corpus.usable import Unusable

BOM = b"\xef\xbb\xbf"  # Windows programs begin UTF-8 files with it
_ICONV = "save it as UTF-8, or run: iconv -f {} -t UTF-8 OLD > NEW"
NOT_UTF8 = "not UTF-8 (save it as UTF-8)"
GBK = f"not UTF-8 but probably GBK, as Chinese Windows writes ({_ICONV.format('GB18030')})"
UTF16 = f"not UTF-8 but probably UTF-16, which Windows calls Unicode ({_ICONV.format('UTF-16')})"
PACKED = "not text but a packed file, such as Excel and Word write (export it: .csv from Excel, .txt from Word)"
PDF = "not text but a PDF (take its text out first, such as: pdftotext NOTES.pdf NOTES.txt)"

_ZIP, _PDF, _MARKS = b"PK\x03\x04", b"%PDF-", (b"\xff\xfe", b"\xfe\xff")
_SHEET = "save it in Excel as 'CSV UTF-8 (.csv)'"
_LETTER = "save it in Word as 'Plain text (.txt)', encoding UTF-8"
_ADVICE = {
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".numbers"), _SHEET),
    **dict.fromkeys((".docx", ".doc", ".rtf", ".odt", ".pages"), _LETTER),
    **dict.fromkeys((".tsv", ".tab"), "rename it to .csv: a header of tabs is understood"),
    **dict.fromkeys((".ndjson", ".jsonlines"), "rename it to .jsonl"),
    **dict.fromkeys((".md", ".text", ".log", ""), "if it is text, rename it to .txt"),
    **dict.fromkeys((".zip", ".gz", ".7z", ".rar", ".tar"), "unpack it first"),
    ".pdf": "take its text out first, such as: pdftotext NOTES.pdf NOTES.txt",
    ".json": "write one record a line, such as: jq -c '.[]' NOTES.json > NOTES.jsonl",
}


def advice(source: Path) -> str:
    """What to do with a file of this ending, as the end of a sentence.

    >>> advice(Path("notes.md"))
    ': if it is text, rename it to .txt'
    """
    found = _ADVICE.get(source.suffix.lower())
    return f": {found}" if found else ""


def decoded(data: bytes) -> str | Unusable:
    """The text of a file, or of a line of it, without the mark it may begin with; or what it seems to be instead.

    >>> decoded("咳嗽三天".encode("gbk")) == Unusable(GBK), decoded("cough".encode("utf-16")) == Unusable(UTF16)
    (True, True)
    """
    begin = data[:4096]
    if begin.startswith(_ZIP):
        return Unusable(PACKED)
    if begin.startswith(_PDF):
        return Unusable(PDF)
    # Of the two bytes of an ASCII letter or a newline one is 0 there; no text in UTF-8 or GBK has such a byte.
    if begin.startswith(_MARKS) or 100 * begin.count(0) > len(begin):
        return Unusable(UTF16)
    try:
        return data.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError:
        return Unusable(GBK if _chinese(data) else NOT_UTF8)


def _chinese(data: bytes) -> bool:
    """Whether it is GBK, and nearly all beyond ASCII are the common characters (GB 2312): Latin-1 is rarely both."""
    try:
        text = data.decode("gb18030")
    except UnicodeDecodeError:
        return False
    beyond = [letter for letter in text if not letter.isascii()]
    return 10 * sum(_common(letter) for letter in beyond) >= 9 * len(beyond) > 0


def _common(letter: str) -> bool:
    try:
        return len(letter.encode("gb2312")) == 2
    except UnicodeEncodeError:
        return False
