"""Batches that do not come back: near `limits.stop_at`, where one stands still, and where nobody knows of one."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from batches.lanes import answered_twice, in_a_loop, label, rows_in, settings_for, states, write_input

from pipeline.batches import remaining_s
from pipeline.batches.part_progress import live_s
from pipeline.limits import Rate
from pipeline.rehearsal import Rehearsal, RehearsalOptions
from pipeline.runner import supervisor, verify
from pipeline.store import Part, PartState

TEXTS = [f"text number {number}, which is good" for number in range(60)]
HALF_S = 1800


class Told(Rehearsal):
    """An endpoint that keeps what was asked of it, and may do without some of it."""

    asked: list[str]
    refuse: Callable[[web.BaseRequest], web.StreamResponse | None] = staticmethod(lambda _: None)
    lose: Callable[[web.BaseRequest], bool] = staticmethod(lambda _: False)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked = [*getattr(self, "asked", []), f"{request.method} {request.path}"]
        if (refused := self.refuse(request)) is not None:
            return refused
        answer = await super()._handle(request)
        return web.json_response({"error": {"message": "lost"}}, status=500) if self.lose(request) else answer


def endpoint_with(**options: Any) -> Told:
    return Told(RehearsalOptions(latency_ms=0, **{"batch_s": 2 * HALF_S, **options}))


def soon() -> str:
    return f"{datetime.now().astimezone() + timedelta(minutes=5):%H:%M}"


def set_back(folder: Path, endpoint: Rehearsal, seconds: float) -> None:
    """The batches that are open were sent so much earlier."""
    for batch in endpoint._store._batches.values():
        batch.began -= seconds
    with sqlite3.connect(folder / "run" / "ledger.db") as ledger:
        ledger.execute("UPDATE batches SET sent_at = sent_at - ?", (seconds,))


@in_a_loop
async def test_near_stop_at_a_batch_that_is_late_is_cancelled_and_the_rest_asked_live(tmp_path: Path) -> None:
    write_input(tmp_path, [*TEXTS, *TEXTS[:5]])
    async with endpoint_with() as endpoint:
        settings = settings_for(tmp_path, endpoint.base_url, batch={"first_part": 20})
        await label(settings, "no_wait")
        set_back(tmp_path, endpoint, HALF_S - 60)  # about half of it is done
        summary = await label(settings_for(tmp_path, endpoint.base_url, limits={"stop_at": soon()}))
        assert (summary.exit_code, summary.labelled, len(rows_in(tmp_path))) == (0, 65, 65)
        assert answered_twice(endpoint) == []
        assert endpoint.books.totals().calls == 60
        assert endpoint.asked.count("POST /v1/batches/batch_000001/cancel") == 1
        assert endpoint.asked.count("POST /v1/batches") == 1
    found = summary.lanes["batch"]
    assert (found["answers"], found["batches"], found["cancelled"]) == (10, 1, 1)
    assert (await verify(tmp_path / "run")).ok


@in_a_loop
async def test_near_stop_at_a_batch_that_is_expected_before_is_waited_for(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS)
    async with endpoint_with() as endpoint:
        settings = settings_for(tmp_path, endpoint.base_url, batch={"first_part": 20})
        await label(settings, "no_wait")
        set_back(tmp_path, endpoint, 2 * HALF_S - 1)
        summary = await label(settings_for(tmp_path, endpoint.base_url, limits={"stop_at": soon()}))
        assert (summary.exit_code, summary.labelled) == (0, 60)
        assert endpoint.asked.count("POST /v1/batches") == 1
        assert not [one for one in endpoint.asked if one.endswith("/cancel")]
    assert (summary.lanes["batch"]["answers"], summary.calls) == (20, 40)


@in_a_loop
async def test_at_stop_at_batches_stay_open_where_the_rest_is_asked_in_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_input(tmp_path, TEXTS)
    now = supervisor._now
    async with endpoint_with() as endpoint:

        def looked_at() -> bool:
            return any(one.startswith("GET /v1/batches/") for one in getattr(endpoint, "asked", []))

        monkeypatch.setattr(supervisor, "_now", lambda: now() + timedelta(hours=looked_at()))
        settings = settings_for(
            tmp_path, endpoint.base_url, limits={"stop_at": soon()}, batch={"first_part": 20, "finish": "batch"}
        )
        summary = await label(settings)
        assert summary.exit_code == 3
        assert "limits.stop_at" in summary.reason
        assert any("1 batch with 20 records at the server" in note for note in summary.notes)
        assert not [one for one in endpoint.asked if one.endswith("/cancel")]
    assert states(tmp_path)["created"] == 1


@in_a_loop
async def test_a_batch_that_cannot_be_cancelled_is_waited_for(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS[:20])
    async with endpoint_with() as endpoint:
        settings = settings_for(tmp_path, endpoint.base_url, batch={"first_part": 20})
        await label(settings, "no_wait")

        def refuse(request: web.BaseRequest) -> web.StreamResponse | None:
            if not request.path.endswith("/cancel"):
                return None
            endpoint._store._options = RehearsalOptions(batch_s=0.1)  # the day is over
            return web.json_response({"error": {"message": "no such method"}}, status=405)

        endpoint.refuse = refuse
        summary = await label(settings, "cancel")
        assert (summary.exit_code, summary.labelled) == (0, 20)
        assert endpoint.asked.count("POST /v1/batches/batch_000001/cancel") == 1


@in_a_loop
async def test_a_batch_that_stands_still_is_told_once_and_for_how_long(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS[:20])
    async with endpoint_with() as endpoint:
        settings = settings_for(tmp_path, endpoint.base_url, batch={"first_part": 20})
        await label(settings, "no_wait")
        with sqlite3.connect(tmp_path / "run" / "ledger.db") as ledger:
            facts = json.loads(ledger.execute("SELECT facts FROM batches").fetchone()[0])
            facts["moved_at"] -= 5 * 3600
            ledger.execute("UPDATE batches SET facts = ?", (json.dumps(facts),))
        looks = endpoint.asked.count("GET /v1/batches/batch_000001")

        def refuse(_: web.BaseRequest) -> None:
            if endpoint.asked.count("GET /v1/batches/batch_000001") == looks + 4:
                endpoint._store._options = RehearsalOptions(batch_s=0.1)

        endpoint.refuse = refuse
        assert (await label(settings)).labelled == 20
    told = [json.loads(line) for line in (tmp_path / "run" / "run.log").read_text().splitlines()]
    still = [one for one in told if one["event"] == "a batch does not move"]
    assert [round(one["still_s"] / 3600) for one in still] == [5]


@pytest.mark.parametrize("nth", [1, 2])
@in_a_loop
async def test_without_a_list_of_batches_what_may_have_been_made_is_never_made_again(tmp_path: Path, nth: int) -> None:
    """The first batch stops the run, since nothing has shown that the requests are right; another one lets it end."""
    write_input(tmp_path, TEXTS)
    async with endpoint_with(batch_s=0.1) as endpoint:
        endpoint.refuse = lambda request: (
            web.json_response({"error": {"message": "no such method"}}, status=405)
            if request.method == "GET" and request.path.endswith("/batches")
            else None
        )
        endpoint.lose = lambda request: (
            request.path.endswith("/batches") and endpoint.asked.count("POST /v1/batches") == nth
        )
        settings = settings_for(tmp_path, endpoint.base_url)
        made, labelled = (1, 0) if nth == 1 else (4, 40)
        for _ in range(2):
            summary = await label(settings)
            assert (summary.exit_code, summary.labelled) == (3, labelled)
            assert "it has no list of batches" in summary.reason
            assert "labelpipe cancel gives it up" in summary.reason
            assert endpoint.asked.count("POST /v1/batches") == made
        assert (await label(settings, "cancel")).exit_code == 0
        summary = await label(settings)
        assert (summary.exit_code, summary.labelled) == (0, 60)


@in_a_loop
async def test_a_batch_of_a_server_that_keeps_no_metadata_is_taken_over_by_its_file(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS)
    async with endpoint_with(batch_s=0.1) as endpoint:
        create = endpoint._store.create
        endpoint._store.create = lambda asked: create({**asked, "metadata": None})  # type: ignore[method-assign]
        endpoint.lose = lambda request: request.method == "POST" and request.path.endswith("/batches")
        summary = await label(settings_for(tmp_path, endpoint.base_url))
        assert (summary.exit_code, summary.labelled) == (0, 60)
        assert endpoint.books.totals().calls == 60


@in_a_loop
async def test_batches_that_answer_nothing_are_not_made_for_ever(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS[:5])
    async with endpoint_with(batch_s=0.02, batch_faults={"line_missing": 1.0}) as endpoint:
        settings = settings_for(tmp_path, endpoint.base_url)
        summary = await label(settings)
        assert (summary.exit_code, summary.labelled, summary.failed) == (3, 0, 0)
        assert "the last 10 batches have ended without an answer" in summary.reason
        assert endpoint.asked.count("POST /v1/batches") == 10
        endpoint._store._options = RehearsalOptions(batch_s=0.02)
        assert (await label(settings)).labelled == 5


def part(state: PartState = PartState.CREATED, **facts: Any) -> Part:
    return Part(1, state, 100, 1, "", "", 1000, None, 0, packed_at=0.0, sent_at=1000.0, facts=facts)


@pytest.mark.parametrize(
    ("one", "took_s", "back"),
    [
        (part(), [], None),
        (part(), [50.0, 900.0, 700.0], 600.0),  # the median is over at 1,700
        (part(), [50.0], 100.0),  # overdue: at least as long as it has stood still
        (part(total=100, done=25, moved_at=1090.0), [9.0], 300.0),
        (part(total=100, done=99, moved_at=1010.0), [], 90.0),
        (part(total=100, done=100, moved_at=1099.0), [], 1.0),
        (part(PartState.ENDED), [], 0.0),
    ],
)
def test_when_a_batch_can_be_back(one: Part, took_s: list[float], back: float | None) -> None:
    found = remaining_s(one, 1100.0, took_s)
    assert found == (None if back is None else pytest.approx(back))


def test_how_long_live_calls_take_for_what_is_open() -> None:
    parts = [part(total=100, done=40), part()]
    assert live_s(parts, Rate(80), Rate(), 1.0) == pytest.approx(120)
    assert live_s(parts, Rate(), Rate(), 320.0) == pytest.approx(30)
    assert live_s(parts, Rate(80), Rate(400), 1.0) == pytest.approx(240)
