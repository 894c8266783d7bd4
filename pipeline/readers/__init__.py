"""Readers: what the user named as input becomes numbered records, a batch at a time."""

from __future__ import annotations

from pipeline.readers.dataset import is_plain_folder
from pipeline.readers.given import Given, given_source
from pipeline.readers.read import peek, read_records
from pipeline.readers.resolve import resolve_sources
from pipeline.readers.rows import Progress
from pipeline.readers.source import FORMAT_NAMES, Source, Stamp
from pipeline.readers.sql import Query
from pipeline.readers.stream import known_encoding

__all__ = [
    "FORMAT_NAMES",
    "Given",
    "Progress",
    "Query",
    "Source",
    "Stamp",
    "given_source",
    "is_plain_folder",
    "known_encoding",
    "peek",
    "read_records",
    "resolve_sources",
]
