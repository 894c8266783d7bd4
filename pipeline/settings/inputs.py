"""The table [input] of the config."""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from pipeline.settings import checks
from pipeline.settings.checks import Takes
from pipeline.settings.section import Section, Text

#: Keys that describe the dialect of a CSV file.
_OF_TABLES = ("delimiter", "quote", "escape", "header", "skip_lines", "skip_initial_space")


class InputSettings(Section):
    """The records to label."""

    path: (
        Annotated[
            str | list[str],
            BeforeValidator(checks.as_plain),
            AfterValidator(checks.paths),
            Takes('a path, a list of paths, a glob, or "-" for stdin'),
        ]
        | None
    ) = None
    format: Literal["auto", "jsonl", "json", "csv", "tsv", "parquet", "text", "files", "text_files", "dataset"] = "auto"
    key: Text | None = None
    encoding: Annotated[str, AfterValidator(checks.encoding), Takes("the name of an encoding")] | None = None
    delimiter: (
        Annotated[str, BeforeValidator(checks.delimiter), Takes('one character that separates cells, or "tab"')] | None
    ) = None
    quote: (
        Annotated[str, BeforeValidator(checks.quote), Takes('one character, or "none"', none_is_text=True)] | None
    ) = None
    escape: (
        Annotated[str, BeforeValidator(checks.quote), Takes('one character, or "none"', none_is_text=True)] | None
    ) = None
    header: (
        Annotated[bool | list[str], BeforeValidator(checks.header), Takes("true, false or a list of names")] | None
    ) = None
    skip_lines: int | None = Field(None, ge=0)
    skip_initial_space: bool | None = None
    records: (
        Annotated[str, StringConstraints(min_length=1), Takes('the name of a list, or "none"', none_is_text=True)]
        | None
    ) = None
    where: Text | None = None
    limit: int | None = Field(None, ge=1)
    sample: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    keys: Annotated[Text, BeforeValidator(checks.as_plain), Takes("the path of a file")] | None = None
    shard: Annotated[str, AfterValidator(checks.shard), Takes("a shard and their number, such as 3/16")] | None = None
    query: Text | None = None
    table: Text | None = None
    url_env: (
        Annotated[str, AfterValidator(checks.url_variable), Takes("the name of an environment variable")] | None
    ) = None

    @model_validator(mode="after")
    def _one_way(self) -> InputSettings:
        if self.path is not None and self.url_env is not None:
            checks.refuse("got input.path and input.url_env; expected one of them")
        if self.query is not None and self.table is not None:
            checks.refuse("got input.query and input.table; expected one of them")
        if (self.query is not None or self.table is not None) and self.format != "auto":
            checks.refuse(f'got input.format = "{self.format}" with a query or table, which has none: leave it out')
        options = [name for name in _OF_TABLES if getattr(self, name) is not None]
        if options and self.format not in ("auto", "csv", "tsv"):
            checks.refuse(
                f'got input.{options[0]} with input.format = "{self.format}"; it is for csv and tsv: leave it out'
            )
        if self.records is not None and self.format not in ("auto", "json", "jsonl"):
            checks.refuse(f'got input.records with input.format = "{self.format}"; it is for json: leave it out')
        signs = {name: getattr(self, name) for name in ("delimiter", "quote", "escape")}
        for one, other in combinations(signs, 2):
            if signs[one] is not None and signs[one] == signs[other] != "none":
                checks.refuse(f"got {signs[one]!r} for input.{one} and for input.{other}; they have to differ")
        return self
