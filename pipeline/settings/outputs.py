"""The table [output]: where the labels go."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from pipeline.settings import checks
from pipeline.settings.checks import Takes
from pipeline.settings.section import Path, Section, Texts

Format = Literal["csv", "jsonl", "parquet", "sql"]


def _csv() -> list[Format]:
    return ["csv"]


class SqlOutputSettings(Section):
    """A table in a database, for `output.formats = ["sql"]`."""

    url: (
        Annotated[
            SecretStr, AfterValidator(checks.database_url), Takes('an SQLAlchemy URL, like "sqlite:///labels.db"')
        ]
        | None
    ) = Field(
        None,
        description="The URL of the database, if it has no password. Unset: `url_env` names it. It is never shown.",
    )
    url_env: Annotated[str, AfterValidator(checks.url_variable), Takes("the name of an environment variable")] = Field(
        "DATABASE_URL", description="The variable, in the environment or in .env, that holds the URL of the database."
    )
    table: Annotated[str, AfterValidator(checks.table_name), Takes('a name like "labels" or "schema.labels"')] = Field(
        "labels",
        description="The table to create. It belongs to this run alone. Set it if several runs write to one database.",
    )


class OutputSettings(Section):
    """Where the labels go."""

    dir: Path = Field(
        "runs/labels",
        description="The run folder. With a config file, the default is `runs/` and the name of that file.",
    )
    columns: Annotated[Texts, Takes('a list of fields, like ["id", "text"]')] | None = Field(
        None,
        description="The fields of the input that are carried along, in this order. Unset: all of them. Set it to "
        "leave out what you do not need.",
    )
    formats: Annotated[list[Format], BeforeValidator(checks.as_plain), AfterValidator(checks.distinct)] = Field(
        default_factory=_csv,
        min_length=1,
        description="The files to write, such as labels.csv. `sql` is a table in a database, written at the end "
        "of each session.",
    )
    order: Literal["completion", "input"] = Field(
        "completion",
        description="The order of the rows: as they were answered, or as in the input. Files in the order of the "
        "input are written when the session ends.",
    )
    report: bool = Field(
        True,
        description="Write `report.html`, a page about the run, at the end of each session.",
    )
    escape_formulas: bool = Field(
        False,
        description="Put an apostrophe before cells that a spreadsheet would run as a formula. Training data "
        "should stay unchanged, so turn it on only for people with spreadsheets.",
    )
    reviewed: bool = Field(
        False,
        description="Add a column `reviewed` with the name of the person who last corrected or confirmed the row. It "
        "is empty where nobody has.",
    )
    sql: SqlOutputSettings | None = Field(None, description="Where the table is.")

    @model_validator(mode="after")
    def _sql_or_none(self) -> OutputSettings:
        if "sql" in self.formats and self.sql is None:
            checks.refuse("output.formats has sql, but there is no table [output.sql] that says where")
        if self.sql is not None and "sql" not in self.formats:
            checks.refuse('there is a table [output.sql], but output.formats has no "sql"')
        return self
