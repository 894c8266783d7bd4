"""The command line: words -> Settings -> one call. No logic; all but typer is imported when it is needed."""

from __future__ import annotations

from pipeline.cli import demo, labelling, looking, steering
from pipeline.cli.frame import EXIT_CODES, app
from pipeline.terminal import open_missing_streams

__all__ = ["EXIT_CODES", "app", "demo", "labelling", "looking", "main", "steering"]


def main() -> None:
    """The `labelpipe` command."""
    open_missing_streams()
    app()
