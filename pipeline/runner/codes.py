"""The codes that a record without a label can have."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from pipeline.errors import ConfigError

#: In failed.csv, in the ledger and for `retry --only`. docs/failures.md says what each means.
RECORD_CODES = frozenset(
    {
        "bad_request",
        "callback_error",
        "duplicate_key",
        "empty_text",
        "internal_error",
        "invalid_answer",
        "invalid_json",
        "invalid_label",
        "media_error",
        "no_key",
        "no_tool_call",
        "rate_limited",
        "record_deadline",
        "refused",
        "render_error",
        "timeout",
        "too_large",
        "truncated",
        "unavailable",
        "unfinished",
        "unreadable",
    }
)

#: No call was made for these: asking again changes nothing, as long as input and config are the same.
UNASKED_CODES = frozenset({"duplicate_key", "empty_text", "media_error", "no_key", "render_error", "unreadable"})


def refuse_unknown(codes: Iterable[str]) -> None:
    """ConfigError for a code that no record can have."""
    for code in sorted(codes):
        if code not in RECORD_CODES:
            near = get_close_matches(code, RECORD_CODES, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(RECORD_CODES))}"
            raise ConfigError(f"--only {code}: no record fails so; {hint}")
