"""`python -m benchmarks [SECTION ...] [--full]`: run sections, print their tables, keep the figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.sections import SECTIONS
from benchmarks.tables import Section

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """The number of missed targets, at most 1: an exit code."""
    wanted = _arguments()
    names = wanted.sections or list(SECTIONS)
    found: dict[str, Section] = {}
    with Bench() as bench:
        for name in names:
            began = time.monotonic()
            found[name] = SECTIONS[name](bench, wanted.full)
            print("\n".join([*found[name].lines(), f"  ({time.monotonic() - began:.0f} s)"]), flush=True)
    path = _keep(found, full=wanted.full)
    missed = sum(section.missed for section in found.values())
    print(f"\n{missed} target{'s' * (missed != 1)} missed. Figures: {path}")
    return min(missed, 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--full", action="store_true", help="the long forms: 500,000 records, full buckets, repeats")
    found = parser.parse_args()
    unknown = [name for name in found.sections if name not in SECTIONS]
    if unknown:
        parser.error(f"no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    return found


def _keep(found: dict[str, Section], *, full: bool) -> Path:
    """Write the figures of this run."""
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    path = RESULTS / f"{now:%Y%m%dT%H%M%S}.json"
    rows = {
        name: {
            "rows": [[row.name, row.measured, row.target, row.passed] for row in section.rows],
            "figures": section.figures,
        }
        for name, section in found.items()
    }
    machine = {"python": platform.python_version(), "system": platform.system(), "cores": os.cpu_count()}
    path.write_text(json.dumps({"at": now.isoformat(), "full": full, **machine, "sections": rows}, indent=1))
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    sys.exit(main())
