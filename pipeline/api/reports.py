"""The page about a run, from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline import facts, report, show
from pipeline.api.shown import Shown, link
from pipeline.runner import in_loop
from pipeline.targets import find_run


class ReportFile(Shown, facts.ReportFile):
    """The page about a run that was written."""

    def _lines(self) -> Sequence[str]:
        return show.report_lines(self)

    def _repr_html_(self) -> str:
        """A link, for a notebook."""
        return link(self.path)


async def awrite_report(run: str | Path | None = None, to: str | Path | None = None) -> ReportFile:
    """`write_report`, for a program that has an event loop."""
    written = await report.write_report(find_run(run), None if to is None else Path(to))
    return ReportFile(**written.as_dict())


async def awatch(run: str | Path | None = None, *, port: int = 0, ready: Callable[[str], None] = print) -> None:
    """`watch`, for a program that has an event loop."""
    await report.watch(find_run(run, at_work=True), port=port, ready=ready)


def write_report(run: str | Path | None = None, to: str | Path | None = None) -> ReportFile:
    """Write a page about a run, by its folder or its config: to `report.html` in its folder, or `to` another file.

    The run may be at work. Raises SetupError where there is no run, or where the file cannot be written.
    """
    return in_loop(awrite_report(run, to))


def watch(run: str | Path | None = None, *, port: int = 0, ready: Callable[[str], None] = print) -> None:
    """Serve the page about a run on this machine until it is interrupted; `ready` gets the address to open.

    Port 0 takes a free one. Raises SetupError where there is no run, or the port is taken.
    """
    in_loop(awatch(run, port=port, ready=ready))
