"""The batch lane at the rehearsal endpoint, over its sockets: what is asked once, what is lost, what is paid."""

from __future__ import annotations

import json
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from batches.lanes import answered_twice, in_a_loop, label, rows_in, settings_for, states, write_input

from pipeline.errors import ConfigError, SetupError
from pipeline.limits import price_of
from pipeline.planner import check, plan
from pipeline.rehearsal import Rehearsal, RehearsalOptions
from pipeline.runner import rename, status, verify
from pipeline.show import closing_lines

TEXTS = [f"text number {number}, which is good" for number in range(60)]


def endpoint_with(**options: Any) -> Rehearsal:
    return Rehearsal(RehearsalOptions(latency_ms=0, **{"batch_s": 0.1, **options}))


@in_a_loop
async def test_a_batch_gives_the_rows_of_live_calls_by_both_apis_at_half_the_price(tmp_path: Path) -> None:
    found, costs = [], []
    for lane, api in (("live", "chat"), ("batch", "chat"), ("batch", "responses")):
        folder = tmp_path / f"{lane}-{api}"
        folder.mkdir()
        write_input(folder, TEXTS)
        async with endpoint_with() as endpoint:
            summary = await label(settings_for(folder, endpoint.base_url, model={"lane": lane, "api": api}))
        assert (summary.exit_code, summary.labelled) == (0, 60)
        found.append(rows_in(folder))
        costs.append(summary.cost_usd)
        told = "\n".join(closing_lines(summary))
        if lane == "batch":
            saved = costs[0] - summary.cost_usd
            assert summary.lanes["batch"] == {
                "batches": 4,
                "cancelled": 0,
                "records": 60,
                "answers": 60,
                "cost_usd": pytest.approx(summary.cost_usd),
                "saved_usd": pytest.approx(saved),
            }
            assert (
                f"batch     60 answers for 60 records in 4 batches · ${saved:.4f} saved compared with live calls"
                in told
            )
            assert "0 calls" not in told
            assert (await verify(folder / "run")).ok
            assert states(folder) == {"closed": 4}
            assert not list((folder / "run" / "batches").iterdir())
        else:
            assert "60 calls" in told
            assert not summary.lanes
    assert found[0] == found[1] == found[2]
    assert costs[1] == pytest.approx(costs[0] / 2)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_faults": {"line_500": 0.2, "line_zero": 0.1, "line_missing": 0.1, "line_twice": 0.2}},
        {"batch_faults": {"batch_lost": 0.5, "batch_expired": 0.3, "batch_empty_error_id": 0.2}},
        {"batch_queue_tokens": 1_500},
        {"faults": {"429": 0.2, "503": 0.1, "reset": 0.1}},
    ],
    ids=["lines", "batches", "queue", "refused"],
)
@in_a_loop
async def test_nothing_is_lost_or_asked_again_that_was_answered(tmp_path: Path, options: dict[str, Any]) -> None:
    # Ten records have the request of another one: they are asked once.
    write_input(tmp_path, [*TEXTS, *TEXTS[:10]])
    async with endpoint_with(**options) as endpoint:
        summary = await label(settings_for(tmp_path, endpoint.base_url, limits={"max_attempts": 30}))
        assert (summary.exit_code, summary.labelled, summary.pending) == (0, 70, 0)
        assert answered_twice(endpoint) == []
        assert endpoint.books.totals().answered == 60
    assert len(rows_in(tmp_path)) == 70
    assert (await verify(tmp_path / "run")).ok


@pytest.mark.parametrize("finish", ["live", "batch"])
@in_a_loop
async def test_bad_answers_are_repaired_and_each_is_paid_once(tmp_path: Path, finish: str) -> None:
    write_input(tmp_path, TEXTS)
    async with endpoint_with(faults={"bad_label": 0.2, "no_tool": 0.1}) as endpoint:
        summary = await label(
            settings_for(tmp_path, endpoint.base_url, batch={"finish": finish}, limits={"max_repairs": 9})
        )
        totals = endpoint.books.totals()
        assert (summary.exit_code, summary.labelled) == (0, 60)
        assert totals.answered == 60 < totals.calls
        assert summary.usage.total == totals.tokens


@in_a_loop
async def test_a_session_that_does_not_wait_says_so_and_the_next_one_collects(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS)
    async with endpoint_with(batch_s=3600) as slow:
        settings = settings_for(tmp_path, slow.base_url, batch={"first_part": 20})
        summary = await label(settings, "no_wait")
        assert summary.exit_code == 3
        assert "1 batch with 20 records at the server" in summary.reason
        slow._store._options = RehearsalOptions(batch_s=0.1)  # the day is over
        again = await label(settings)
        assert (again.exit_code, again.labelled) == (0, 60)
        assert slow.books.totals().calls == 60


@in_a_loop
async def test_cancelling_collects_what_was_answered_and_a_run_asks_the_rest(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS[:20])
    async with endpoint_with(batch_s=3600) as endpoint:
        settings = settings_for(tmp_path, endpoint.base_url, batch={"first_part": 20})
        await label(settings, "no_wait")
        endpoint._store._batches["batch_000001"].began -= 1790  # half of its time is over
        summary = await label(settings, "cancel")
        assert (summary.exit_code, summary.labelled) == (0, 10)
        assert summary.reason.startswith("1 batch cancelled; 10 answers of them collected, for $")
        endpoint._store._options = RehearsalOptions(batch_s=0.1)
        assert (await label(settings)).labelled == 20
        assert endpoint.books.totals().calls == 20


@in_a_loop
async def test_a_budget_is_never_passed_and_most_of_it_is_used(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS)
    async with endpoint_with() as endpoint:
        whole = settings_for(tmp_path, endpoint.base_url, limits={"budget_tokens": 4_000}, batch={"part_records": 60})
        summary = await label(whole)
        books = endpoint.books.totals()
    assert summary.exit_code == 3
    assert "limits.budget_tokens" in summary.reason
    assert 1_500 < books.tokens <= 4_000
    assert summary.usage.total == books.tokens
    assert summary.labelled == books.answered, "what is paid for is in the file when the run stops"
    batches = (await status(tmp_path / "run"))["batches"]
    assert sum(one["sent_at"] is not None for one in batches) == summary.lanes["batch"]["batches"]
    assert all(one["sent_at"] or one["state"] == "packed" for one in batches), "what was taken apart is no batch"


@in_a_loop
async def test_a_batch_that_the_server_refuses_stops_the_run_and_says_why(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS)
    async with endpoint_with(batch_faults={"batch_refused": 1.0}) as endpoint:
        summary = await label(settings_for(tmp_path, endpoint.base_url))
        assert summary.exit_code == 2
        assert "the server refuses the batch: A fault." in summary.reason
        assert endpoint.books.totals().calls == 0


@in_a_loop
async def test_a_wrong_model_costs_the_first_part_and_no_record_its_label(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS)
    async with endpoint_with(models=("gpt-6-luna",)) as endpoint:
        wrong = settings_for(tmp_path, endpoint.base_url, model={"name": "gpt-6-lunar"})
        summary = await label(wrong)
        assert (summary.exit_code, summary.rejected) == (2, 0)
        assert "gpt-6-lunar" in summary.reason
        assert endpoint.books.totals().calls == 5
        mended = await label(settings_for(tmp_path, endpoint.base_url), keep=True)
        assert (mended.exit_code, mended.labelled) == (0, 60)


@in_a_loop
async def test_a_run_that_goes_live_still_collects_its_batches(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS[:30])
    async with endpoint_with(batch_s=3600) as endpoint:
        await label(settings_for(tmp_path, endpoint.base_url, batch={"first_part": 20}), "no_wait")
        endpoint._store._options = RehearsalOptions(batch_s=0.1)
        summary = await label(settings_for(tmp_path, endpoint.base_url, model={"lane": "live"}))
        assert (summary.exit_code, summary.labelled) == (0, 30)
        assert endpoint.books.totals().calls == 30


@in_a_loop
async def test_a_record_that_changes_while_its_batch_is_open_is_asked_as_it_is_now(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS[:20])
    async with endpoint_with(batch_s=3600) as endpoint:
        settings = settings_for(tmp_path, endpoint.base_url, batch={"first_part": 20})
        await label(settings, "no_wait")
        write_input(tmp_path, ["another text, which is bad", *TEXTS[1:20]])
        endpoint._store._options = RehearsalOptions(batch_s=0.1)
        summary = await label(settings)
        assert (summary.exit_code, summary.labelled) == (0, 20)
        assert rows_in(tmp_path)["0"] == "negative"
        # What was asked in vain is paid for, and counted.
        assert endpoint.books.totals().calls == 21
        assert summary.usage.total == endpoint.books.totals().tokens


@in_a_loop
async def test_a_plan_labels_its_pilot_live_and_prices_the_rest_as_batches(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS)
    async with endpoint_with() as endpoint:
        settings = settings_for(tmp_path, endpoint.base_url)
        found = await plan(settings, pilot=10, quiet=True)
        live, _, batch = found.lanes
        assert (live.chosen, batch.chosen) == (False, True)
        assert found.cost == batch.cost
        assert live.cost is not None
        assert batch.cost is not None
        assert batch.cost.high == pytest.approx(live.cost.high / 2)
        assert (await label(settings)).labelled == 60
        assert endpoint.books.totals().calls == 60
        assert "half of this run's 3 took up to" in (await plan(settings, pilot=10, quiet=True)).lanes[2].note


@in_a_loop
async def test_a_plan_and_a_rename_wait_for_open_batches(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS[:20])
    async with endpoint_with(batch_s=3600) as endpoint:
        settings = settings_for(tmp_path, endpoint.base_url, batch={"first_part": 20})
        await label(settings, "no_wait")
        with pytest.raises(SetupError, match=r"1 batch is open.*labelpipe cancel"):
            await plan(settings, quiet=True)
        with pytest.raises(SetupError, match=r"1 batch is open.*labelpipe cancel"):
            await rename(settings, "sentiment", {"neutral": "none"})


@in_a_loop
async def test_check_asks_whether_the_server_has_batches(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS)
    async with endpoint_with() as endpoint:
        for prefix, ok in (("", True), ("/other", False)):
            settings = settings_for(tmp_path, endpoint.base_url + prefix)
            checks = {one.name: one.ok for one in await check(settings)}
            assert checks["batches"] is ok


@in_a_loop
async def test_rows_of_a_function_cannot_be_batched(tmp_path: Path) -> None:
    async def answer(_: object) -> Any:
        raise AssertionError

    write_input(tmp_path, TEXTS[:2])
    with pytest.raises(ConfigError, match="a function has none"):
        await label(settings_for(tmp_path, "http://127.0.0.1:9/v1"), provider=answer)


@in_a_loop
async def test_verify_finds_a_batch_whose_lines_and_count_differ(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS[:5])
    async with endpoint_with() as endpoint:
        await label(settings_for(tmp_path, endpoint.base_url))
    with sqlite3.connect(tmp_path / "run" / "ledger.db") as ledger:
        facts = json.loads(ledger.execute("SELECT facts FROM batches").fetchone()[0])
        facts["usage"][0] += 7
        ledger.execute("UPDATE batches SET facts = ?", (json.dumps(facts),))
    report = await verify(tmp_path / "run")
    assert [check.name for check in report.checks if not check.ok] == ["batches"]


@in_a_loop
async def test_batches_are_read_and_priced_as_what_they_were_made_for(tmp_path: Path) -> None:
    """Another API, and another model, in the config since: what was asked is not asked again."""
    write_input(tmp_path, TEXTS[:20])
    async with endpoint_with(batch_s=3600) as endpoint:
        await label(settings_for(tmp_path, endpoint.base_url, batch={"first_part": 20}), "no_wait")
        endpoint._store._options = RehearsalOptions(batch_s=0.1)
        dearer = settings_for(tmp_path, endpoint.base_url, model={"api": "responses", "name": "gpt-6-sol"})
        summary = await label(dearer, "cancel")
        assert endpoint.books.totals().calls == 20
        assert summary.usage.total == endpoint.books.totals().tokens
    price = price_of("gpt-6-luna", batch=True)
    assert price is not None
    assert summary.cost_usd == pytest.approx(price.cost_usd(summary.usage))


@in_a_loop
async def test_each_record_of_a_batch_is_a_request_of_the_day_once(tmp_path: Path) -> None:
    """An upload that fails is tried again, and counts no record twice; what does not fit waits for tomorrow."""
    write_input(tmp_path, TEXTS)
    async with endpoint_with() as endpoint:
        lost = [web.json_response({"error": {"message": "try again"}}, status=503)]
        upload = endpoint._routes["POST", "/v1/files"]
        once = {("POST", "/v1/files"): lambda request: given(lost.pop()) if lost else upload(request)}
        endpoint._routes = {**endpoint._routes, **once}
        limits = {"requests_per_day": 30, "on_day_limit": "stop"}
        summary = await label(settings_for(tmp_path, endpoint.base_url, limits=limits))
        assert "30 requests a day" in summary.reason
        assert (summary.exit_code, endpoint.books.totals().calls) == (3, 25)
    with sqlite3.connect(tmp_path / "run" / "ledger.db") as ledger:
        assert ledger.execute("SELECT SUM(requests) FROM days").fetchone() == (25,)


async def given(answer: web.Response) -> web.Response:
    return answer


@in_a_loop
async def test_no_batch_is_sent_outside_the_hours(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS[:5])
    now = datetime.now().astimezone()
    hours = [f"{now + timedelta(hours=later):%H:%M}" for later in (2, 3)]
    async with endpoint_with() as endpoint:
        summary = await label(settings_for(tmp_path, endpoint.base_url, limits={"run_between": hours}), "no_wait")
        assert "to be sent" in summary.reason
        assert not endpoint._store._files


@in_a_loop
async def test_a_record_too_large_for_the_queue_is_not_sent_again_and_again(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS[:3])
    async with endpoint_with(batch_queue_tokens=1) as endpoint:
        summary = await label(settings_for(tmp_path, endpoint.base_url, batch={"poll_s": 1}), "no_wait")
        assert summary.exit_code == 3
        assert len(endpoint._store._batches) <= 6


@in_a_loop
async def test_cancelling_ends_where_a_batch_was_never_made(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS[:5])
    async with endpoint_with() as endpoint:
        await label(settings_for(tmp_path, endpoint.base_url), "no_wait")
        with sqlite3.connect(tmp_path / "run" / "ledger.db") as ledger:
            # As a kill leaves it that came long ago, between the note and the call.
            ledger.execute("UPDATE batches SET state = 'uploaded', begun = 1, sent_at = 1")
            ledger.execute("DELETE FROM outcomes")
        endpoint._store._batches.clear()
        assert (await label(settings_for(tmp_path, endpoint.base_url), "cancel")).exit_code == 0
        assert (await label(settings_for(tmp_path, endpoint.base_url))).labelled == 5


@in_a_loop
async def test_answers_by_schema_are_read_and_repaired_as_those_of_live_calls(tmp_path: Path) -> None:
    rows, more = [], {"finish": "batch"}
    for lane, api in (("live", "chat"), ("batch", "chat"), ("batch", "responses")):
        folder = tmp_path / f"{lane}-{api}"
        folder.mkdir()
        write_input(folder, TEXTS)
        async with endpoint_with(batch_s=0.1, faults={"bad_label": 0.3, "bad_json": 0.1}) as endpoint:
            model = {"lane": lane, "api": api, "tool_choice": "schema"}
            summary = await label(
                settings_for(folder, endpoint.base_url, model=model, batch=more, limits={"max_repairs": 9})
            )
        assert summary.exit_code == 0, summary.reason
        rows.append(rows_in(folder))
    assert rows[0] == rows[1] == rows[2]
    assert len(rows[0]) == len(TEXTS)
