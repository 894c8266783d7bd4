"""Limits what may be queued at the server at once: by the config, or by what a refusal has taught."""


class QueueLimit:
    """The limit on queued tokens. The server counts them its own way, so only what was queued at a refusal is known.

    `learned` and `most_lines` are what an earlier instance learned: that limit, and the most lines of a part; None:
    nothing.
    """

    def __init__(self, configured: int | None, learned: int | None = None, most_lines: int | None = None) -> None:
        self._configured = configured
        # Mutable state: what refusals have taught.
        self.learned = learned
        self.most_lines = most_lines

    def fits(self, tokens: int, queued: int) -> bool:
        """Whether a part fits in addition to the queued tokens. If nothing is queued, it is tried anyway."""
        most = self._configured or self.learned
        return most is None or not queued or queued + tokens <= most

    def refused(self, tokens: int, lines: int, queued: int) -> bool:
        """Learn from the refusal of a part with this many tokens queued. Return whether it alone is too large."""
        if queued:
            self.learned = queued
            return False
        self.learned = max(1, tokens // 2)
        if lines > 1:
            self.most_lines = max(1, lines // 2)
        return lines > 1
