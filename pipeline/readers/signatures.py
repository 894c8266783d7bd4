"""Rejects files whose first bytes are not text, whatever their names say. Messages say what to do."""

import re
from pathlib import PurePath

from pipeline.errors import InputError

_WORKBOOK = (
    "an Excel workbook: save its sheet as CSV (UTF-8), or convert it: "
    "python -c \"import pandas; pandas.read_excel('{name}').to_csv('{stem}.csv', index=False)\""
)
_PICTURE = 'a picture: to make each file a record, set input.format = "files"'
#: The first bytes of a file -> what it is, and what to do.
_STARTS = (
    (b"PAR1", 'a Parquet file: set input.format = "parquet"'),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _WORKBOOK),
    (b"SQLite format 3\0", "a SQLite database: set input.path to sqlite:///{name} and input.table to the table"),
    (b"ARROW1", "an Arrow (Feather) file: save it as Parquet"),
    (b"ORC", "an ORC file: save it as Parquet"),
    (b"Obj\x01", "an Avro file: save it as JSON Lines or Parquet"),
    (b"\x89HDF", "an HDF5 file: save it as CSV or Parquet"),
    (b"%PDF-", 'a PDF: to make each file a record, set input.format = "files"'),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive: unpack it first"),
    (b"\x89PNG\r\n\x1a\n", _PICTURE),
    (b"\xff\xd8\xff", _PICTURE),
    (b"\x80\x04\x95", "a Python pickle: save it as JSON Lines or Parquet"),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file: fetch the file (git lfs pull)"),
    (b"\x80\x05\x95", "a Python pickle: save it as JSON Lines or Parquet"),
)
_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)*<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_MARKUP = re.compile(rb"(\xef\xbb\xbf)?\s*<(\?xml|!doctype)\b", re.IGNORECASE)


def reject_non_text(head: bytes, name: str, *, markup: bool = False) -> None:
    """Raise InputError if this is not the beginning of a text or, unless `markup` is wanted, is HTML or XML."""
    what = _what(head, name) or ("" if markup else _what_markup(head[:4096]))
    if what:
        place = name.partition("?")[0]
        raise InputError(f"{name}: is {what.format(name=place, stem=PurePath(place).stem)}")


def _what(head: bytes, name: str) -> str:
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _what_in_zip(head, name)
    if head[257:262] == b"ustar":
        return "a tar archive: unpack it first (tar -xf {name}), and name the files in it"
    return next((what for start, what in _STARTS if head.startswith(start)), "")


def _what_in_zip(head: bytes, name: str) -> str:
    ending = PurePath(name).suffix.lower()
    if b"xl/" in head or ending in (".xlsx", ".xlsm", ".xlsb") or b"opendocument.spreadsheet" in head[:100]:
        return _WORKBOOK
    if b"word/" in head or ending == ".docx":
        return "a Word document: save it as plain text"
    return "a zip archive: unpack it first (unzip {name}), and name the file in it"


def _what_markup(head: bytes) -> str:
    if _PAGE.match(head):
        return "an HTML page, most likely a login or an error page saved in the file's place: download the file again"
    return "XML: convert it to CSV or JSON Lines" if _MARKUP.match(head) else ""
