"""The beginning of a run: nothing is written before a record can be asked, and a run that can ask none is stopped."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from pipeline.errors import NothingToAskError
from pipeline.records import Outcome

#: So many records that were rejected before a call, for one reason and with none between them that could be asked, are
#: the config's fault. A file may well begin with a few bad lines, or with a few hundred.
ENOUGH = 1_000
_T = TypeVar("_T")


class Beginning:
    """Holds back the outcomes before the first record that can be asked.

    A wrong key or a misspelled column rejects everything: were that written, each record would have to be asked for
    again by hand once the config is right. `names` are the inputs, for the message, and `why_none` says why they give
    no record; `over`: records of the run were answered before, so the config has worked; `lenient`: the user wants them
    rejected, however many they are.
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
        # All state that changes.
        self._over = over
        self._is_empty = True
        self._held_back: list[Outcome] = []

    @property
    def is_over(self) -> bool:
        """Whether a record was found that can be asked, or nobody wants to know."""
        return self._over or self._lenient

    def passed(self, items: list[_T | Outcome]) -> list[_T | Outcome]:
        """What of these may be handed on. Raises NothingToAskError where no record will ever be asked."""
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
        self._over = True  # several reasons: the records differ, and the next one may do so too
        return [*self._released()]

    def ended(self, skipped: int) -> list[Outcome]:
        """What is left at the input's end, `skipped` records of which had an outcome. Raises NothingToAskError."""
        if (self._is_empty and self._names) or not (self._held_back or self._over or skipped):
            # Also where the run has labels: the program that writes the input has most likely failed.
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
