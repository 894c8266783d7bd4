"""What can be said of a run from its files."""

from __future__ import annotations

from pipeline.results.verify import Check, Report, verify
