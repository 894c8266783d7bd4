"""How much may be queued at the server at once: what the config says, or what a refusal has taught."""

from __future__ import annotations

from pipeline.batches.packing import MOST_LINES
from pipeline.store import Part


class QueueLimit:
    """The limit on queued tokens. The server counts them its own way, so only what was queued at a refusal is known."""

    def __init__(self, configured: int | None) -> None:
        self._configured = configured
        # All state that changes: what a refusal has taught, and how many lines a part may have for that.
        self._learned: int | None = None
        self.most_lines = MOST_LINES

    @property
    def is_learned(self) -> bool:
        """Whether the server has refused a batch for it."""
        return self._learned is not None

    def fits(self, part: Part, queued: int) -> bool:
        """Whether there is room for a part beside so many queued tokens; a part that is alone is tried."""
        most = self._configured or self._learned
        return most is None or not queued or queued + part.tokens <= most

    def refused(self, part: Part, queued: int) -> bool:
        """Learn from a refusal beside so many queued tokens; gives whether the part alone is too large."""
        if queued:
            self._learned = queued
            return False
        self._learned = max(1, part.tokens // 2)
        if part.lines > 1:
            self.most_lines = max(1, part.lines // 2)
        return part.lines > 1
