"""Turns the user's input into numbered records, in batches."""

from pipeline.readers.dataset import is_plain_folder
from pipeline.readers.dialect import TextDialect
from pipeline.readers.discovery import is_system_file, resolve_sources
from pipeline.readers.encodings import read_text_head
from pipeline.readers.files import is_text_file
from pipeline.readers.iterables import RecordInput, iterable_source
from pipeline.readers.read import BATCH, Records, key_from_value, peek, placeholder_key, read_records, read_rows
from pipeline.readers.remote import describe_remote_error, is_url, open_filesystem
from pipeline.readers.rows import ReadProgress
from pipeline.readers.source import FILE_FORMATS, Source, Stamp, format_by_ending
from pipeline.readers.sql import Query
