"""Readers: what the user named as input becomes numbered records, a batch at a time."""

from pipeline.readers.dataset import is_plain_folder
from pipeline.readers.dialect import Dialect
from pipeline.readers.encodings import beginning_of
from pipeline.readers.files import is_text
from pipeline.readers.given import Given, given_source
from pipeline.readers.read import BATCH, Records, given_name, made_up_name, peek, read_records, read_rows
from pipeline.readers.remote import is_address, reason_of, remote_system
from pipeline.readers.resolve import is_litter, resolve_sources
from pipeline.readers.rows import Progress
from pipeline.readers.source import OF_FILES, Source, Stamp, format_by_ending
from pipeline.readers.sql import Query
