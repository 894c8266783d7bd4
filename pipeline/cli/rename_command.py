"""The command that gives labels other names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.application import MEASURE, AsJson, Output, Sets, app, fail, run_and_print, settings_of

if TYPE_CHECKING:
    from pipeline.settings import Settings


@app.command(rich_help_panel=MEASURE)
def rename(
    run: Annotated[Path, typer.Argument(help="The run folder, or its config.", metavar="RUN|CONFIG")],
    column: Annotated[str, typer.Argument(help="The label field.", metavar="COLUMN")],
    pairs: Annotated[list[str], typer.Argument(help="The old and the new label: account=login", metavar="OLD=NEW ...")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the records that would change; change nothing.")
    ] = False,
    sets: Sets = None,
    output_dir: Output = None,
    json_out: AsJson = False,
) -> None:
    """Rename or merge labels in a run and its config, without calls."""
    settings = settings_of(run, sets, None, output_dir)

    async def give_names() -> Any:
        from pipeline.runner import rename as in_run

        return await in_run(settings, column, _pairs(settings, column, pairs), dry_run=dry_run)

    run_and_print(give_names(), "renamed_lines", json_out=json_out)


def _pairs(settings: Settings, column: str, texts: list[str]) -> list[tuple[str, str]]:
    """The names in each text. Where a label holds a `=` itself, it tells where the old name ends."""
    from pipeline.parts import label_fields

    field = label_fields(settings).get(column)
    known = {str(value) for value in field.values} if field is not None else set[str]()
    pairs = []
    for text in texts:
        splits = [(text[:at], text[at + 1 :]) for at, sign in enumerate(text) if sign == "="]
        if not splits:
            fail(f"{text}: expected the old and the new name, like account=login")
        pairs.append(next((split for split in splits if split[0] in known), splits[0]))
    return pairs
