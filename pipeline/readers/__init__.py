"""Readers: what the user named as input becomes numbered records, a batch at a time."""

from __future__ import annotations

from pipeline.readers.read import peek, read_records
from pipeline.readers.rows import Progress
from pipeline.readers.source import FORMAT_NAMES, Source, resolve_sources
from pipeline.readers.stream import known_encoding

__all__ = ["FORMAT_NAMES", "Progress", "Source", "known_encoding", "peek", "read_records", "resolve_sources"]
