"""What can be said of a run from its files."""

from pipeline.results.verify import Check, Report, verify
