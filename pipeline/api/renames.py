"""Other names for labels, from Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pipeline import labelfields, runner, show
from pipeline.api.shown import Shown
from pipeline.runner import in_loop
from pipeline.settings import Settings
from pipeline.targets import load_settings


class Renamed(Shown, labelfields.Renamed):
    """What renaming labels came to."""

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def _lines(self) -> Sequence[str]:
        return show.renamed_lines(self)


async def arename(
    run: Settings | str | Path, column: str, pairs: Mapping[Any, Any], *, dry_run: bool = False
) -> Renamed:
    """`rename`, for a program that has an event loop."""
    settings = run if isinstance(run, Settings) else load_settings(run)
    found = await runner.rename(settings, column, pairs, dry_run=dry_run)
    return Renamed(**{one.name: getattr(found, one.name) for one in fields(labelfields.Renamed)})


def rename(run: Settings | str | Path, column: str, pairs: Mapping[Any, Any], *, dry_run: bool = False) -> Renamed:
    """Give labels of `column` other names in the run and in its config: `{"account": "login"}`. Makes no call.

    `run` is a run folder, its config, or its settings. Two labels with one new name are merged. With `dry_run` nothing
    is changed, and the records that would be are counted. Raises SetupError, also while the run is at work.
    """
    return in_loop(arename(run, column, pairs, dry_run=dry_run))
