"""The table [input] of the config; as in `fields`, a description is the key's line in docs/config.md."""

from __future__ import annotations

from itertools import combinations
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from pipeline.settings import checks
from pipeline.settings.checks import Takes
from pipeline.settings.section import Section, Text

#: keys that say how a table of text is written
_OF_TABLES = ("delimiter", "quote", "escape", "header", "skip_lines", "skip_initial_space")


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
        description="The records: files of one format, compressed or not, or addresses (https, s3, a database). "
        "Globs are read in a stable order. Required unless `url_env` is set or Python supplies the "
        "records.",
    )
    format: Literal["auto", "jsonl", "json", "csv", "tsv", "parquet", "text", "files", "text_files", "dataset"] = Field(
        "auto",
        description="The format of the records. `json` is an array, or objects over several lines; `text` is one "
        "record per line; `files` is one record per file, and `text_files` the same with its text; `dataset` is a "
        "Hugging Face dataset on disk. `auto` goes by the name of the file. Set it if the name does not tell.",
    )
    key: Text | None = Field(
        None,
        description="The field that names a record. By default, its place in the input is its name. Set it if you "
        "may edit, insert, or reorder records.",
    )
    encoding: Annotated[str, AfterValidator(checks.encoding), Takes("the name of an encoding")] | None = Field(
        None,
        description="The encoding of text files. Unset: UTF-8, or what a byte order mark says. A file that seems "
        "to have another encoding is asked about. Set it for files from older systems.",
    )
    delimiter: (
        Annotated[str, BeforeValidator(checks.delimiter), Takes('one character that separates cells, or "tab"')] | None
    ) = Field(
        None,
        description="The character between the cells of a CSV. Unset: a comma, semicolon, tab, or pipe, if it is "
        "clear which. Set it if `check` asks.",
    )
    quote: (
        Annotated[str, BeforeValidator(checks.quote), Takes('one character, or "none"', none_is_text=True)] | None
    ) = Field(
        None,
        description="The character around cells that contain a delimiter or a line break. `none` if quotes are "
        "part of the text, as in most TSV files. Unset: double quotes, or none in a TSV that clearly "
        "has none. Set it if `check` asks.",
    )
    escape: (
        Annotated[str, BeforeValidator(checks.quote), Takes('one character, or "none"', none_is_text=True)] | None
    ) = Field(
        None,
        description="The character before a quote, a delimiter, or a line break that is part of a cell, such as "
        "the backslash that MySQL, Hive, and Spark write. A cell `\\N` is then empty. `none` if there "
        "is no such character. Unset: a backslash if the rows have equal lengths only with it. Set it "
        "if `check` asks.",
    )
    header: (
        Annotated[bool | list[str], BeforeValidator(checks.header), Takes("true, false or a list of names")] | None
    ) = Field(
        None,
        description="Whether the first row of a CSV names its columns. `false` names them `column_1`, `column_2`, "
        "and so on; a list sets the names. Unset: it does, unless it looks like a record. Set it for "
        "files without a header.",
    )
    skip_lines: int | None = Field(
        None,
        ge=0,
        description="The number of lines above the header of a CSV, such as a title or comments. Unset: none; a line "
        "that looks like a title is asked about. Set it if `check` asks.",
    )
    skip_initial_space: bool | None = Field(
        None,
        description='Whether spaces at the beginning of a cell of a CSV are left out, as in `1, "a, b"`, and those '
        "after a closing quote. Unset: if only then the quotes are around cells. Set it if `check` asks.",
    )
    records: (
        Annotated[str, StringConstraints(min_length=1), Takes('the name of a list, or "none"', none_is_text=True)]
        | None
    ) = Field(
        None,
        description="The list in a JSON object that holds the records, by its name (`data`) or its path "
        "(`data.items`). `none` if the object is one record. Unset: the only list of objects in the "
        "only object of a file. Set it if `check` asks.",
    )
    where: Text | None = Field(
        None,
        description="An expression over the fields of a record, such as `len(text) > 0 and lang == 'en'`. Records of "
        "which it is not true are left out and counted. Set it if not all records are to be labeled.",
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="Use only the first N records. Set it to try a config on a part of the input; short: `--limit`.",
    )
    sample: int | None = Field(
        None,
        ge=1,
        description="Use only N records, drawn at random from all of them. The same N are drawn each time, and a "
        "larger N adds to them. Set it to learn what the whole input would give; short: `--sample`.",
    )
    seed: int = Field(0, ge=0, description="Another seed draws another sample.")
    keys: Annotated[Text, BeforeValidator(checks.as_plain), Takes("the path of a file")] | None = Field(
        None,
        description="A file with the keys of the records to use: one per line, or CSV or JSONL with a column of that "
        "name. Set it to label records that you have picked; short: `--keys`.",
    )
    query: Text | None = Field(
        None, description="A SELECT whose rows are the records. `path` is then the SQLAlchemy URL of a database."
    )
    table: Text | None = Field(
        None,
        description="A table whose rows are the records, in the order of its primary key. Use it instead of "
        "`query` to read all of it.",
    )
    url_env: (
        Annotated[str, AfterValidator(checks.url_variable), Takes("the name of an environment variable")] | None
    ) = Field(
        None,
        description="The variable, in the environment or in .env, that holds the address. Set it instead of "
        "`path` if the address contains a password or a signature.",
    )

    @model_validator(mode="after")
    def _one_way(self) -> InputSettings:
        if self.path is not None and self.url_env is not None:
            checks.refuse("got input.path and input.url_env; expected one of them")
        if self.query is not None and self.table is not None:
            checks.refuse("got input.query and input.table; expected one of them")
        if (self.query is not None or self.table is not None) and self.format != "auto":
            checks.refuse(f'got input.format = "{self.format}" with a query or table, which has none: leave it out')
        said = [name for name in _OF_TABLES if getattr(self, name) is not None]
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
