"""The table [output]: which files a run writes."""

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
    ) = None
    url_env: Annotated[str, AfterValidator(checks.url_variable), Takes("the name of an environment variable")] = (
        "DATABASE_URL"
    )
    table: Annotated[str, AfterValidator(checks.table_name), Takes('a name like "labels" or "schema.labels"')] = (
        "labels"
    )


class OutputSettings(Section):
    """Which files a run writes."""

    dir: Path = "runs/labels"
    columns: Annotated[Texts, Takes('a list of fields, like ["id", "text"]')] | None = None
    formats: Annotated[list[Format], BeforeValidator(checks.as_plain), AfterValidator(checks.distinct)] = Field(
        default_factory=_csv, min_length=1
    )
    order: Literal["completion", "input"] = "completion"
    report: bool = True
    escape_formulas: bool = False
    reviewed: bool = False
    sql: SqlOutputSettings | None = None

    @model_validator(mode="after")
    def _sql_or_none(self) -> OutputSettings:
        if "sql" in self.formats and self.sql is None:
            checks.refuse("output.formats has sql, but there is no table [output.sql] that says where")
        if self.sql is not None and "sql" not in self.formats:
            checks.refuse('there is a table [output.sql], but output.formats has no "sql"')
        return self
