"""The lease service on a clock that moves: one limit for all shards, whatever becomes of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import InputError
from pipeline.leases import LeaseService, ShardBudgets, SharedQueue
from pipeline.leases.messages import VALID_S, Grant, Job, LeaseRequest, Refusal, parse_grant, parse_request, to_bytes
from pipeline.leases.service import SILENT_S
from pipeline.limits import DayMeter, LocalResource
from pipeline.records import ServerLimits

RunOn = Callable[[Coroutine[Any, Any, Any]], Any]


class Shard:
    """A shard that asks again at once and uses what it gets, for tests of the lease service alone."""

    def __init__(self, service: LeaseService, number: int, of: int, *, wants: int = 50, session: str = "one") -> None:
        self.service, self.number, self.of = service, number, of
        self.wants, self.session = wants, session
        self.count, self.got = 0, 0
        self.to_send = 0

    async def ask(self, **words: Any) -> Grant:
        given = {"wants": self.wants, "sent": [0] * self.to_send, **words}
        grant = await self.service.lease(LeaseRequest(self.number, self.of, self.session, self.count, **given))
        self.count += 1
        self.to_send = grant.requests
        self.got += grant.requests
        return grant

    async def go_on(self) -> None:
        while not (await self.ask()).stop:
            pass


def service_of(
    rpm: float | None, *, day: int | None = None, shards: int = 0, stop: bool = False, tokens: int | None = None
) -> LeaseService:
    counted: dict[str, int] = {}

    async def used(name: str) -> int:
        return counted.get(name, 0)

    async def add(name: str, count: int) -> None:
        counted[name] = counted.get(name, 0) + count

    meter = DayMeter(day, used=used, add=add, wall=time.time)
    return LeaseService(
        shards,
        LocalResource(rpm),
        meter,
        ShardBudgets(Book(), (None, tokens)),
        SharedQueue(Book()),
        stop_at_day_limit=stop,
    )


class Book:
    """What ShardBudgets keeps, in memory: the ledger's two methods that it uses."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    async def meta_get(self, key: str) -> str | None:
        return self.kept.get(key)

    async def meta_set(self, key: str, value: str) -> None:
        self.kept[key] = value


async def during(seconds: float, *work: Coroutine[Any, Any, Any]) -> None:
    tasks = [asyncio.create_task(one) for one in work]
    await asyncio.sleep(seconds)
    for task in tasks:
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def ended(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.parametrize(("rpm", "shards"), [(60, 4), (6_000, 4)])
def test_shards_share_one_limit_evenly(moved_clock: RunOn, rpm: int, shards: int) -> None:
    async def main() -> None:
        service = service_of(rpm)
        crew = [Shard(service, number, shards, wants=1 + rpm // 600) for number in range(1, shards + 1)]
        await during(60.0, service.work(), *(one.go_on() for one in crew))
        got = sum(one.got for one in crew)
        assert 0.97 * rpm <= got <= 1.01 * rpm + shards
        assert max(one.got for one in crew) - min(one.got for one in crew) <= max(2, 0.1 * got / shards)

    moved_clock(main())


def test_an_exchange_that_is_asked_again_gets_the_same_calls(moved_clock: RunOn) -> None:
    async def main() -> None:
        service = service_of(6_000)
        granting = asyncio.create_task(service.work())
        ask = LeaseRequest(1, 2, "one", 0, wants=5)
        first = await service.lease(ask)
        assert (await service.lease(ask)) == first
        assert first.requests == 5
        with pytest.raises(InputError, match="not the next one"):
            await service.lease(LeaseRequest(1, 2, "one", 7, wants=5))
        with pytest.raises(InputError, match="not the next one"):
            await service.lease(LeaseRequest(1, 2, "another", 1, wants=5))
        with pytest.raises(InputError, match="this run has 2 shards"):
            await service.lease(LeaseRequest(1, 3, "one", 1, wants=5))
        await ended(granting)

    moved_clock(main())


def test_what_a_dead_shard_held_goes_to_the_others(moved_clock: RunOn) -> None:
    """It holds a second's worth, and dies. A server that is asked in its place has no call too many."""

    async def main() -> None:
        service = service_of(600)
        dead, alive = Shard(service, 1, 2, wants=10), Shard(service, 2, 2, wants=10)
        granting = asyncio.create_task(service.work())
        await dead.ask()
        held = dead.got
        assert held > 0
        await asyncio.sleep(SILENT_S + VALID_S + 2.5)
        service.take_back_expired()
        lost = await service.lease(LeaseRequest(1, 2, "one", 0, wants=10))
        assert lost.requests == 0, "an exchange that is asked again must not give away what was taken back"
        before = alive.got
        await alive.ask()
        assert alive.got - before > held, "what the dead one held is there at once"
        await ended(granting)

    moved_clock(main())


def test_a_refusal_of_one_shard_holds_all(moved_clock: RunOn) -> None:
    async def main() -> None:
        service = service_of(6_000)
        one, other = Shard(service, 1, 2, wants=5), Shard(service, 2, 2, wants=5)
        granting = asyncio.create_task(service.work())
        await one.ask()
        await other.ask()
        # Several, for a single one may be about its own record only.
        grant = await one.ask(refused=[Refusal(5 + n, 100 + n, retry_after_s=20.0) for n in range(8)])
        began = asyncio.get_running_loop().time()
        held, got = grant, 0
        while not got:
            held = await other.ask()
            got = held.requests
        assert 15.0 <= asyncio.get_running_loop().time() - began <= 25.0
        await ended(granting)

    moved_clock(main())


def test_a_day_limit_is_counted_over_all_shards(moved_clock: RunOn) -> None:
    async def main() -> None:
        service = service_of(6_000, day=130, stop=True)
        crew = [Shard(service, number, 3, wants=7) for number in (1, 2, 3)]
        await during(30.0, service.work(), *(one.go_on() for one in crew))
        assert 120 <= sum(one.got for one in crew) <= 130, "what a shard waited for as the day ended is not sent"
        assert (service.stopped or ("",))[0] == "day_limit"
        assert (await crew[0].ask()).stop == service.stopped

    moved_clock(main())


def test_requests_of_the_day_that_a_shard_leaves_are_there_for_others(moved_clock: RunOn) -> None:
    """They stayed counted: a run waited for the next day with requests left. And one that waits hears at once."""

    async def main() -> None:
        service = service_of(60_000, day=10)
        first, other = Shard(service, 1, 2, wants=10), Shard(service, 2, 2, wants=10)
        granting = asyncio.create_task(service.work())
        await first.ask()
        assert (first.got, (await other.ask()).requests) == (10, 0)
        first.to_send = 4
        await first.ask(wants=0, is_last=True)
        await asyncio.wait_for(_until_got(other, 6), 5.0)
        service.set_day_limit(12, stop=False)
        await asyncio.wait_for(_until_got(other, 8), 5.0)
        await ended(granting)

    moved_clock(main())


async def _until_got(shard: Shard, count: int) -> None:
    while shard.got < count:
        await shard.ask()


def test_paused_shards_get_nothing_until_it_goes_on(moved_clock: RunOn) -> None:
    async def main() -> None:
        service = service_of(6_000)
        shard = Shard(service, 1, 1)
        granting = asyncio.create_task(service.work())
        service.set_paused(True)
        assert (await shard.ask()).requests == 0
        assert (await shard.ask()).reason == "paused by order"
        service.set_paused(False)
        assert (await shard.ask()).requests > 0
        await ended(granting)

    moved_clock(main())


def test_unused_calls_can_be_sent_by_others(moved_clock: RunOn) -> None:
    async def main() -> None:
        service = service_of(600)
        shard = Shard(service, 1, 1, wants=1)
        granting = asyncio.create_task(service.work())
        began = asyncio.get_running_loop().time()
        for _ in range(50):
            while not (await shard.ask(sent=[], unused=shard.to_send)).requests:
                pass
        took_s = asyncio.get_running_loop().time() - began
        assert took_s <= 1.0, "a call that was not sent is no call of the minute"
        await ended(granting)

    moved_clock(main())


@pytest.mark.parametrize(
    "data",
    [
        b"", b"[]", b"{}", b'{"shard": 1}', b'{"shard": -1, "shards": 2, "session": "a", "number": 0}',
        b'{"shard": 1, "shards": 2, "session": "a", "number": true}',
        b'{"shard": 1, "shards": 2, "session": "a", "number": 0, "answered": [1, 2]}',
        b'{"shard": 1, "shards": 2, "session": "a", "number": 0, "sent": ["x"]}',
        b'{"shard": 1, "shards": 2, "session": "a", "number": 0, "limits": {"x": 1}}',
        b'{"shard": 1, "shards": 2, "session": 3, "number": 0}',
        b'{"shard": 1, "shards": 2, "session": "a", "number": 0, "more": 1}',
        b'{"shard": 1, "shards": 2, "session": "a", "number": 0, "sent": 5}',
        b'{"shard": 1, "shards": 2, "session": "a", "number": 0, "spent": [1]}',
        b'{"shard": 1, "shards": 2, "session": "a", "number": 0, "refused": 5}',
        b'{"shard": 1, "shards": 2, "session": "a", "number": 0, "refused": [{"age_ms": "x", "sent_age_ms": 1}]}',
        b'{"shard": 1, "shards": 2, "session": "a", "number": 0, "limits": {"limit_requests": "x"}}',
    ],
)  # fmt: skip
def test_what_no_shard_says_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        parse_request(data)


def test_words_come_back_as_they_were() -> None:
    ask = LeaseRequest(3, 16, "s", 4, wants=5, sent=[1, 2], answered=[1, 2, 3], refused=[Refusal(1, 2, "tokens", 3.5)],
              spent=(1, 2), limits={"limit_requests": 5})  # fmt: skip
    assert to_bytes(parse_request(to_bytes(ask))) == to_bytes(ask)
    grant = Grant(4, 5, (None, 7), held_s=1.5, reason="why", state={"a": 1})
    assert to_bytes(parse_grant(to_bytes(grant))) == to_bytes(grant)


def test_the_messages_are_those_of_earlier_versions() -> None:
    """Shards and their lease server may be of different versions, and each refuses keys that it does not know."""
    assert {*LeaseRequest.__slots__} == {
        "shard", "shards", "session", "number", "wants", "tokens", "unused", "corrected", "in_flight", "sent",
        "answered", "limits", "refused", "spent", "holds", "needs", "is_last", "parts", "proven", "room",
        "refused_part", "gold",
    }  # fmt: skip
    assert {*Grant.__slots__} == {
        "number", "requests", "caps", "shrink", "held_s", "reason", "stop", "short", "words", "state", "room",
        "is_too_large", "queue", "gold",
    }  # fmt: skip
    assert {*Refusal.__slots__} == {"age_ms", "sent_age_ms", "scope", "retry_after_s", "day_limit"}
    assert {*ServerLimits.__slots__} == {
        f"{name}_{unit}" for name in ("limit", "remaining") for unit in ("requests", "tokens")
    } | {"reset_requests_s", "reset_tokens_s"}
    assert {*Job.__slots__} == {"run_id", "shards", "digest", "dealing", "fence", "spent"}
    state = service_of(100.0).state(0.0)
    rates = {"per_minute", "configured", "learned"}
    assert state.keys() == {
        "requests", "tokens", "asked_for_s", "refused_since", "excused", "day_s", "day_reason"
    }  # fmt: skip
    assert (state["requests"].keys(), state["tokens"].keys()) == (rates, rates)


def test_a_shard_that_lacks_money_waits_for_what_others_hand_back(moved_clock: RunOn) -> None:
    """It ended at once while another held half of the budget, and records were left that could be paid."""

    async def main() -> None:
        service = service_of(None, tokens=100)
        lacking, rich = Shard(service, 1, 2, wants=0), Shard(service, 2, 2, wants=0)
        await lacking.ask(spent=(0, 0))
        assert (await rich.ask(spent=(0, 0), needs=(0, 90))).caps == (None, 90)
        for _ in range(9):
            await rich.ask(spent=(0, 30), holds=True)  # it has nothing to hand back yet
            told = await lacking.ask(spent=(0, 0), needs=(0, 40))
            assert (told.short, told.caps) == ("", (None, 0)), "what it cannot use is there for others"
        await rich.ask(spent=(0, 50), is_last=True)
        assert (await lacking.ask(spent=(0, 0), needs=(0, 40))).caps[1] >= 40
        told = await lacking.ask(spent=(0, 40), needs=(0, 60))
        assert told.short == service.short
        assert told.short.startswith("limits.budget_tokens = 100: 90 are handed out to the shards")

    moved_clock(main())


def test_a_budget_that_is_set_in_mid_run_counts_what_was_spent(moved_clock: RunOn) -> None:
    """What shards had spent without a cap was unknown, and could be spent once more."""

    async def main() -> None:
        service = service_of(None)
        one, other = Shard(service, 1, 2, wants=0), Shard(service, 2, 2, wants=0)
        for shard in (one, other):
            await shard.ask(spent=(0, 0))
        service.set_caps((None, 100))
        await other.ask(spent=(0, 60))
        assert (await one.ask(spent=(0, 10), needs=(0, 20))).caps == (None, 10), "the other one does not know of it yet"
        await other.ask(spent=(0, 70))
        assert (await one.ask(spent=(0, 10), needs=(0, 20))).caps[1] in range(20, 31)
        told = await one.ask(spent=(0, 20), needs=(0, 40))
        assert told.short.startswith("limits.budget_tokens = 100: 90 ")

    moved_clock(main())


def test_money_that_was_handed_out_never_passes_the_cap(tmp_path: Path) -> None:
    from hypothesis import given
    from hypothesis import strategies as st

    step = st.tuples(st.sampled_from(["fill", "end", "die", "restart"]), st.integers(1, 4), st.integers(0, 400))

    @given(st.lists(step, max_size=60))
    def check(steps: list[tuple[str, int, int]]) -> None:
        async def main() -> None:
            book = Book()
            budgets = ShardBudgets(book, (1_000, None), before=(50, 0))
            spent = dict.fromkeys(range(1, 5), 0)
            for what, shard, amount in steps:
                if what == "fill":
                    if await budgets.fill(shard, (spent[shard] + amount, 0), 4) is None:
                        may = budgets.caps_of(shard)[0]
                        assert spent[shard] + amount <= (may or 0)
                        spent[shard] += amount
                elif what == "end":
                    await budgets.hand_back(shard, (spent[shard], 0))
                elif what == "die":
                    await budgets.begin(shard, (spent[shard], 0))
                else:
                    budgets = ShardBudgets(book, (1_000, None), before=(50, 0))
                    await budgets.load()
                assert sum(spent.values()) + 50 <= budgets.handed[0] <= 1_000

        asyncio.run(main())

    check()


def room_ask(shard: int, number: int, part: int, *, parts: list[int] | None = None, **words: Any) -> LeaseRequest:
    """A shard wants to send a part of 10 records with 100 tokens."""
    return LeaseRequest(shard, 2, "one", number, parts=parts or [], room=[part, 100, 10, 1], **words)


def test_room_for_batches_is_granted_once_and_outlives_a_lease_server(moved_clock: RunOn) -> None:
    """The first part goes alone, the limit holds over all shards, and a new lease server knows what is out."""

    async def main() -> None:
        service = service_of(None, day=50)
        book, day = Book(), service._day
        service.queue = SharedQueue(book, 200)  # type: ignore[arg-type]
        assert (await service.lease(room_ask(1, 0, 11))).room
        assert not (await service.lease(room_ask(2, 0, 21))).room, "the first part goes alone"
        service.queue = SharedQueue(book, 200)  # type: ignore[arg-type]
        await service.queue.load()
        assert not (await service.lease(room_ask(2, 1, 21))).room, "a new lease server knows of it"
        assert (await service.lease(room_ask(1, 1, 12, parts=[11, 100], proven=True))).room
        told = await service.lease(room_ask(2, 2, 21))
        assert (told.room, told.queue and told.queue["proven"]) == (False, True), "the queue is full"
        assert (await service.lease(LeaseRequest(1, 2, "one", 2, parts=[12, 100]))).stop is None  # one is collected
        assert (await service.lease(room_ask(2, 3, 21))).room
        # The server takes less than it was told to: what a refusal means is judged here.
        told = await service.lease(LeaseRequest(2, 2, "one", 4, parts=[21, 100], refused_part=[21, 100, 10]))
        assert (told.is_too_large, told.queue and told.queue["is_learned"]) == (False, True)
        told = await service.lease(LeaseRequest(1, 2, "one", 3, parts=[12, 100], refused_part=[12, 100, 10]))
        assert (told.is_too_large, told.queue and told.queue["most_lines"]) == (True, 5)
        # Three parts of ten requests were let through; two more fill the day.
        assert await day._used(time.strftime("%Y-%m-%d", time.gmtime())) == 30
        service.stop_at_day_limit = True
        assert (await service.lease(LeaseRequest(2, 2, "one", 5, parts=[], room=[22, 100, 20, 1]))).room
        assert not (await service.lease(room_ask(1, 4, 13))).stop
        told = await service.lease(LeaseRequest(2, 2, "one", 6, parts=[], room=[23, 100, 10, 1]))
        assert (told.stop or "?")[0] == "day_limit"

    moved_clock(main())
