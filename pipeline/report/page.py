"""Renders the facts of a run as one HTML file that loads nothing, runs nothing, and escapes every text."""

import hashlib
import time
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.errors import SetupError
from pipeline.facts import ReportFile
from pipeline.report import charts, view
from pipeline.report.data import ReportData, load_report_data
from pipeline.report.label_quality import quality_of
from pipeline.show import SIMULATED, plain
from pipeline.stats import RunSummary
from pipeline.store import STEP_S, RunDir
from pipeline.targets import merged_run_and_manifest
from pipeline.terminal import printable
from pipeline.threads import in_daemon
from pipeline.version import __version__

_TEMPLATES = Path(__file__).parent / "templates"


def short(text: str, most: int) -> str:
    """Return at most `most` characters of a text, with visible control characters, and the number of omitted ones."""
    if len(text) <= most:
        return printable(text)
    return f"{printable(text[:most])}… ({len(text) - most:,} more characters)"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"short": short, "shown": printable, "percent": view.percent}
    return environment


@cache
def _part(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def policy(*, is_live: bool = False) -> str:
    """Return the page's Content-Security-Policy, which allows only its style sheet, identified by a digest.

    The page of an active run also has a script, which only reloads the page, and an empty icon.
    """
    live = f"script-src {_digest('watch.js')}; connect-src 'self'; img-src data:; " if is_live else ""
    return f"default-src 'none'; style-src {_digest('report.css')}; {live}base-uri 'none'; form-action 'none'"


def _digest(name: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(_part(name).encode()).digest()).decode()}'"


def render(report: ReportData, *, refresh_s: float = 0) -> str:
    """Render the page. With `refresh_s`, it reloads after that many seconds."""
    head, reason = view.head_of(report)
    fingerprint = report.manifest.get("fingerprint") or {}
    columns, rows = view.sample(report)
    return _environment().get_template("report.html").render(
        style=_part("report.css"),
        script=_part("watch.js"),
        policy=policy(is_live=refresh_s > 0),
        refresh_s=refresh_s,
        title=report.folder.absolute().name,
        folder=str(report.folder),
        simulated=SIMULATED if report.state["simulated"] else "",
        state=head,
        reason=reason,
        tiles=list(view.tiles(report)),
        facts=list(view.facts(report)),
        prompt=plain(fingerprint.get("prompt")),
        system=plain(fingerprint.get("system")),
        fields=list(view.fields_of(report)),
        distributions=list(view.distributions(report)),
        columns=columns,
        rows=rows,
        costs=list(view.costs(report)),
        failures=list(view.failures(report)),
        percentiles=view.percentiles(report),
        config=view.config_of(report),
        version=__version__,
        made_at=view.clock(time.time()),
        **_speed(report),
        **quality_of(report),
    )  # fmt: skip


def _speed(report: ReportData) -> Mapping[str, Any]:
    pace, text = report.pace, view.pace_text(report)
    latencies = report.overview.latencies
    quick = ", ".join(f"{name} {seconds}" for name, seconds in view.percentiles(report))
    return {
        "throughput": charts.throughput_chart(pace, f"Throughput over time. {text}") if len(pace.buckets) > 1 else {},
        "latency": charts.latency_chart(latencies, STEP_S, f"Latency of answers: {quick}") if latencies else {},
        "pace_text": text,
        "unit": pace.unit,
        "has_refusals": any(one.refused for one in pace.buckets),
        "has_limit": any(one.limit is not None for one in pace.buckets),
        "has_outages": bool(pace.outages),
        "has_borders": bool(pace.borders),
    }


# -- the page as a file ------------------------------------------------------------------------------------------------


async def write_report(folder: Path, to: Path | None = None) -> ReportFile:
    """Write the report of a run, by default to `report.html` in its folder.

    Raises SetupError if there is no run or the file cannot be written.
    """
    await merged_run_and_manifest(folder)
    report = await load_report_data(folder)
    path = await in_daemon(lambda: _write(to or RunDir(folder).report, render(report)))
    return ReportFile(str(path), path.stat().st_size, bool(report.state["simulated"]))


async def after_run(summary: RunSummary) -> tuple[str, str]:
    """Write the report of a session that ends, and return the name and path of the file for its summary."""
    folder = Path(summary.run_dir)
    report = await load_report_data(folder, summary.as_dict())
    return "report", str(await in_daemon(lambda: _write(RunDir(folder).report, render(report))))


def _write(path: Path, page: str) -> Path:
    """Replace the file atomically, so that the old or the new one exists at any time."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(page.encode(errors="replace"))
        part.replace(path)
    except OSError as error:
        raise SetupError(f"{path}: the report cannot be written: {error.strerror or error}") from error
    return path
