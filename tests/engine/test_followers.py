"""Records with the identical request share one answer; what is made of it is each record's own."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import replace
from typing import Any

import pytest
from engine_parts import FakeTask, Rig, answered, items, record, request

from pipeline.engine import Job, Pool, PoolSizes
from pipeline.errors import CallbackError, InvalidAnswerError
from pipeline.records import Answer, CallbackContext, Outcome, Record, Request, Response, Status, Usage, ValidCall

RunOn = Callable[[Any], Any]


class Picky(FakeTask):
    """Takes the answer for all records but some: by the callback, or by what is checked before it."""

    def __init__(self, *, breaks: Set[str] = frozenset(), refuses: Set[str] = frozenset()) -> None:
        super().__init__()
        self.breaks, self.refuses = breaks, refuses

    def parse_calls(self, answer: Answer, record: Record, before: Any = ()) -> tuple[ValidCall, ...]:
        if record.key in self.refuses:
            raise InvalidAnswerError(f"not for {record.key}")
        return super().parse_calls(answer, record)

    async def run_callback(self, said: ValidCall, record: Record, call: CallbackContext) -> ValidCall:
        if record.key in self.breaks:
            raise CallbackError(f"no {record.key}")
        return replace(await super().run_callback(said, record, call), extra={"mine": record.key})


def followed(run_on: RunOn, task: FakeTask) -> tuple[dict[str, Outcome], int]:
    """The outcomes of k0, which is asked, and of k1 and k2, which follow it; and the calls."""
    outcomes: list[Outcome] = []
    calls = 0

    async def commit(batch: Any) -> None:
        outcomes.extend(batch)

    async def provider(_: Request) -> Response:
        nonlocal calls
        calls += 1
        return answered()

    async def main() -> None:
        job = Job(request(0), followers=[record(1), record(2)])
        await Pool(items([job]), Rig(provider, task=task, max_repairs=0).asker, commit, sizes=PoolSizes(2)).run()

    run_on(main())
    assert len(outcomes) == 3
    return {one.record.key: one for one in outcomes}, calls


def test_followers_have_the_answer_and_its_facts_and_pay_nothing(moved_clock: RunOn) -> None:
    found, calls = followed(moved_clock, Picky())
    first = found["k0"]
    assert calls == 1
    for key in ("k1", "k2"):
        one = found[key]
        assert (one.answer, one.request_digest, one.request_id) == (first.answer, first.request_digest, "req")
        assert (one.usage, one.attempts, one.cost_usd, one.copied_from) == (Usage(), 0, 0.0, "k0")
        assert one.label == {"label": "good", "mine": key}, "what its own callback gave back"


@pytest.mark.parametrize("how", ["breaks", "refuses"])
@pytest.mark.parametrize("bad", [{"k0"}, {"k1"}, {"k1", "k2"}, {"k0", "k2"}], ids=lambda keys: " ".join(sorted(keys)))
def test_each_is_judged_for_itself(moved_clock: RunOn, how: str, bad: set[str]) -> None:
    """The one that was asked may fail where a follower passes, and the other way about."""
    found, calls = followed(moved_clock, Picky(**{how: bad}))
    assert calls == 1
    assert {key for key, one in found.items() if one.status is Status.REJECTED} == bad
    for key, one in found.items():
        assert (one.label is None) == (key in bad)
        assert (one.problem is not None) == (key in bad)
        if one.problem is not None:
            assert key in one.problem.message, "its own reason"
