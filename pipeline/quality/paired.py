"""Two raters, or two runs, on the same records."""

from __future__ import annotations

from collections import Counter
from math import exp, fsum, lgamma, log


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """The two-sided p-value of McNemar's exact test; 1 where both are right on the same records.

    `only_first` is how many records only the first has right, `only_second` only the second: under the null hypothesis
    each of these is a toss of a fair coin. McNemar (1947); the exact form is the binomial test.
    """
    n, k = only_first + only_second, min(only_first, only_second)
    if n == 0 or only_first == only_second:
        return 1.0
    constant = lgamma(n + 1) - n * log(2)
    tail = fsum(exp(constant - lgamma(i + 1) - lgamma(n - i + 1)) for i in range(k + 1))
    return min(1.0, 2 * tail)


class Paired:
    """Counts how two runs answer the same records, and against gold where there is any."""

    __slots__ = ("changes", "right")

    def __init__(self) -> None:
        # All state that changes: how often one's value stands beside the other's, and who is right how often.
        self.changes: Counter[tuple[str, str]] = Counter()
        self.right: Counter[tuple[bool, bool]] = Counter()

    def add(self, one: str, other: str) -> None:
        """A record that both have answered."""
        self.changes[one, other] += 1

    def judge(self, one_is_right: bool, other_is_right: bool) -> None:
        """A record with gold that both have answered."""
        self.right[one_is_right, other_is_right] += 1

    @property
    def n(self) -> int:
        """Records that both have answered."""
        return self.changes.total()

    @property
    def same(self) -> int:
        """Those on which they agree."""
        return sum(count for (one, other), count in self.changes.items() if one == other)

    @property
    def p_value(self) -> float:
        """McNemar's exact test on the records with gold."""
        return mcnemar_exact(self.right[True, False], self.right[False, True])
