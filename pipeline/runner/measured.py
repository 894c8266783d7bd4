"""How good the labels are, by the latest evaluation that is kept in the run folder."""

from typing import Any

from pipeline import codec
from pipeline.store import RunDir

#: What a screen shows of a column: shares from 0 to 1, and the number of gold records.
_SHOWN = ("accuracy", "accuracy_low", "accuracy_high", "n")


def latest_evaluation(run_dir: RunDir) -> dict[str, Any] | None:
    """The last line of evaluations.jsonl that can be read; None where labels and gold were never compared."""
    try:
        lines = run_dir.evaluations.read_bytes().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        try:
            found = codec.loads(line)
        except codec.JSONDecodeError:
            continue
        if isinstance(found, dict):
            return found
    return None


def measured_of(run_dir: RunDir) -> dict[str, dict[str, Any]]:
    """The accuracy of each label column that was compared with gold, with its interval and the number of records."""
    columns = (latest_evaluation(run_dir) or {}).get("columns")
    return {
        name: {key: measure.get(key) for key in _SHOWN}
        for name, measure in (columns.items() if isinstance(columns, dict) else ())
        if isinstance(measure, dict) and isinstance(measure.get("accuracy"), int | float)
    }
