"""The page as a file: on demand, and at the end of a run."""

from pathlib import Path

from pipeline import facts
from pipeline.errors import SetupError
from pipeline.report.data import load_report_data
from pipeline.report.page import render
from pipeline.stats import RunSummary
from pipeline.store import RunDir
from pipeline.threads import in_daemon


async def write_report(folder: Path, to: Path | None = None) -> facts.ReportFile:
    """Write the report of a run, to `report.html` in its folder where nothing else is said.

    Raises SetupError where there is no run, or where the file cannot be written.
    """
    report = await load_report_data(folder)
    path = await in_daemon(lambda: _write(to or RunDir(folder).report, render(report)))
    return facts.ReportFile(str(path), path.stat().st_size, bool(report.state["simulated"]))


async def after_run(summary: RunSummary) -> tuple[str, str]:
    """Write the report of a session that ends, for its summary: what the file is, and where."""
    folder = Path(summary.run_dir)
    report = await load_report_data(folder, summary.as_dict())
    return "report", str(await in_daemon(lambda: _write(RunDir(folder).report, render(report))))


def _write(path: Path, page: str) -> Path:
    """Either the old file or the new one is there, whatever happens."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(page.encode(errors="replace"))
        part.replace(path)
    except OSError as error:
        raise SetupError(f"{path}: the report cannot be written: {error.strerror or error}") from error
    return path
