"""The table [input] of the config; as in `fields`, a description is the key's line in docs/config.md."""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from pipeline.settings import checks
from pipeline.settings.checks import Takes
from pipeline.settings.section import Section, Text


class InputSettings(Section):
    """What is labelled."""

    path: (
        Annotated[
            str | list[str],
            BeforeValidator(checks.as_plain),
            AfterValidator(checks.paths),
            Takes('a path, a list of paths, a glob, or "-" for stdin'),
        ]
        | None
    ) = Field(
        None,
        description="The records: files of one format, plain or compressed, or addresses (https, s3, a database). "
        "Globs are read in a stable order. Needed unless `url_env` is set or Python gives the records.",
    )
    format: Literal["auto", "jsonl", "json", "csv", "tsv", "parquet", "text", "files", "dataset"] = Field(
        "auto",
        description="How they are written; `json` is an array or objects over several lines, `text` one record a line, "
        "`files` one a file, `dataset` a Hugging Face dataset on the disk. `auto` goes by the file's name.",
    )
    key: Text | None = Field(
        None, description="The field that names a record. Without it, its place in the input is its name."
    )
    encoding: Annotated[str, AfterValidator(checks.encoding), Takes("the name of an encoding")] | None = Field(
        None,
        description="The encoding of text files. Unset: UTF-8, or what a byte order mark says; what looks like another "
        "one is asked about.",
    )
    delimiter: (
        Annotated[str, BeforeValidator(checks.delimiter), Takes('one character that separates cells, or "tab"')] | None
    ) = Field(
        None,
        description="What separates the cells of a CSV. Unset: commas, semicolons, tabs or pipes, whichever is plain "
        "to see; what is not is asked about.",
    )
    quote: Annotated[str, BeforeValidator(checks.quote), Takes('one character, or "none"')] | None = Field(
        None,
        description="What cells with a delimiter or a line break in them stand in; `none` where quotes are part of the "
        "text, as in most TSV. Unset: double quotes, or none in a TSV that plainly has none.",
    )
    escape: Annotated[str, BeforeValidator(checks.quote), Takes('one character, or "none"')] | None = Field(
        None,
        description="The character before a quote, a delimiter or a line break that is part of a cell, like the "
        "backslash that MySQL, Hive and Spark write; a cell `\\N` is then empty. `none` where there is no such "
        "character. Unset: a backslash where the rows come out even only so; what is not plain is asked about.",
    )
    header: (
        Annotated[bool | list[str], BeforeValidator(checks.header), Takes("true, false or a list of names")] | None
    ) = Field(
        None,
        description="Whether the first row of a CSV names its columns. `false`: they are `column_1`, `column_2` ...; a "
        "list names them. Unset: it does, unless it looks like a record, which is asked about.",
    )
    records: Text | None = Field(
        None,
        description="The list in a JSON object that holds the records, by its name, like `data`, or by its path, like "
        "`data.items`; `none` where the object is one record. Unset: the only list of objects in the only object of a "
        "file; what is not plain is asked about.",
    )
    limit: int | None = Field(None, ge=1, description="Take only the first so many records; short: `--limit`.")
    query: Text | None = Field(
        None, description="A SELECT whose rows are the records; `path` is then a database's SQLAlchemy URL."
    )
    table: Text | None = Field(None, description="The same for all of a table, in the order of its primary key.")
    url_env: (
        Annotated[str, AfterValidator(checks.url_variable), Takes("the name of an environment variable")] | None
    ) = Field(
        None,
        description="In place of `path`: the variable, of the environment or of .env, that holds an address with a "
        "password or a signature in it.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> InputSettings:
        if self.path is not None and self.url_env is not None:
            checks.refuse("got input.path and input.url_env; expected one of them")
        if self.query is not None and self.table is not None:
            checks.refuse("got input.query and input.table; expected one of them")
        if (self.query is not None or self.table is not None) and self.format != "auto":
            checks.refuse(f'got input.format = "{self.format}" with a query or table, which has none: leave it out')
        said = [name for name in ("delimiter", "quote", "escape", "header") if getattr(self, name) is not None]
        if said and self.format not in ("auto", "csv", "tsv"):
            checks.refuse(
                f'got input.{said[0]} with input.format = "{self.format}"; it is for csv and tsv: leave it out'
            )
        if self.records is not None and self.format not in ("auto", "json", "jsonl"):
            checks.refuse(f'got input.records with input.format = "{self.format}"; it is for json: leave it out')
        signs = {name: getattr(self, name) for name in ("delimiter", "quote", "escape")}
        for one, other in combinations(signs, 2):
            if signs[one] is not None and signs[one] == signs[other] != "none":
                checks.refuse(f"got {signs[one]!r} for input.{one} and for input.{other}; they have to differ")
        return self
