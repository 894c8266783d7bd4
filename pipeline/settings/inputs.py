"""The table [input] of the config; as in `fields`, a description is the key's line in docs/config.md."""

from __future__ import annotations

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
    format: Literal["auto", "jsonl", "csv", "tsv", "parquet", "text", "files", "dataset"] = Field(
        "auto",
        description="How they are written; `text` is one record a line, `files` one a file, `dataset` a Hugging Face "
        "dataset on the disk. `auto` goes by the file's name.",
    )
    key: Text | None = Field(
        None, description="The field that names a record. Without it, its place in the input is its name."
    )
    encoding: Annotated[str, AfterValidator(checks.encoding), Takes("the name of an encoding")] = Field(
        "utf-8", description="The encoding of text files. `utf-8` takes a byte order mark too."
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
        return self
