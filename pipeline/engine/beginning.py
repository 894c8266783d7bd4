"""Writes nothing before the first record that can be asked, and stops a run in which no record can be asked."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from pipeline.errors import NothingToAskError
from pipeline.records import Outcome

#: If this many records are rejected before a call, for one reason and with no record among them that can be asked, the
#: config is at fault. A file may begin with a few bad lines, or a few hundred.
ENOUGH = 1_000
_T = TypeVar("_T")


class Beginning:
    """Holds back the outcomes before the first record that can be asked.

    A wrong key or a misspelled column rejects everything. If that were written, the user would have to retry each
    record by hand after fixing the config. `names` are the inputs, for the message; `why_none` explains why they
    contain no record. `over`: records of the run were answered before, so the config has worked. `lenient`: the user
    wants them rejected, however many there are.
    """

    def __init__(
        self,
        names: Sequence[str] = (),
        why_none: Callable[[Sequence[str]], str] = lambda names: f"no record was read: {_listed(names)}",
        *,
        over: bool = False,
        lenient: bool = False,
    ) -> None:
        self._names = names
        self._why_none = why_none
        self._lenient = lenient
        # Mutable state.
        self._over = over
        self._is_empty = True
        self._held_back: list[Outcome] = []

    @property
    def is_over(self) -> bool:
        """Whether a record that can be asked was found, or none is needed."""
        return self._over or self._lenient

    def passed(self, items: list[_T | Outcome]) -> list[_T | Outcome]:
        """Return the items that may go on now. Raises NothingToAskError if no record will ever be asked."""
        self._is_empty = False
        if self._over:
            return items
        rejected = [item for item in items if isinstance(item, Outcome)]
        if len(rejected) < len(items) or (items and self._lenient):
            self._over = True
            return [*self._released(), *items]
        self._held_back += rejected
        if len(self._held_back) < ENOUGH:
            return []
        if len(_codes(self._held_back)) == 1:
            raise NothingToAskError(self._describe(f"none of the first {len(self._held_back):,} records"))
        self._over = True  # several reasons: records differ, so the next one may be fine
        return [*self._released()]

    def ended(self, skipped: int) -> list[Outcome]:
        """Return what is left at the end of the input; `skipped` records had an outcome. Raises NothingToAskError."""
        if (self._is_empty and self._names) or not (self._held_back or self._over or skipped):
            # Even if the run has labels: the program that writes the input has probably failed.
            raise NothingToAskError(self._why_none(self._names))
        if self._over or skipped:
            return self._released()
        raise NothingToAskError(self._describe(f"none of its {len(self._held_back):,} records"))

    def _released(self) -> list[Outcome]:
        held_back, self._held_back = self._held_back, []
        return held_back

    def _describe(self, whom: str) -> str:
        codes = _codes(self._held_back)
        most = codes.most_common(1)[0][0]
        first = next(one.problem.message for one in self._held_back if one.problem and one.problem.code == most)
        counts = ", ".join(f"{code} {count:,}" for code, count in codes.most_common())
        return (
            f"{_listed(self._names)}: {whom} can be asked ({counts}). The first: {first}. "
            "Nothing was sent or written: fix the config or the input (limits.stop_rejected = 0 rejects them and "
            "continues)"
        )


def _codes(outcomes: Sequence[Outcome]) -> Counter[str]:
    return Counter(one.problem.code for one in outcomes if one.problem is not None)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (" ..." if len(names) > 3 else "") or "the input"
