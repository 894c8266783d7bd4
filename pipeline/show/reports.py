"""A report that was written, for a person."""

from pipeline.facts import ReportFile
from pipeline.show.views import SIMULATED


def report_lines(written: ReportFile) -> list[str]:
    """Where the page is."""
    lines = [f"Wrote {written.path} ({written.size_bytes / 1000:,.0f} kB). Open it in a browser."]
    return [*lines, f"  {SIMULATED}"] if written.simulated else lines
