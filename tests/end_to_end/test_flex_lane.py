"""The flex lane at the rehearsal endpoint, over its sockets: the same rows, each answer at the price of its tier."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from batches.lanes import LABELS, answered_twice, in_a_loop, label, rows_in, settings_for, write_input
from end_to_end.forked import Fork
from end_to_end.stage import environment
from end_to_end.talks import outcomes, talking

from pipeline import astatus
from pipeline.errors import ConfigError
from pipeline.limits import price_of
from pipeline.planner import check, plan
from pipeline.rehearsal import Rehearsal, RehearsalOptions
from pipeline.report import write_report
from pipeline.runner import verify
from pipeline.settings import Settings
from pipeline.show import closing_lines, status_lines

TEXTS = [f"text number {number}, which is good" for number in range(40)]


def endpoint_with(**options: Any) -> Rehearsal:
    return Rehearsal(RehearsalOptions(latency_ms=0, **options))


def flex_settings(folder: Path, base_url: str, *, patience_s: float = 0, **more: Any) -> Settings:
    model = {"lane": "flex", **more.pop("model", {})}
    return settings_for(folder, base_url, model=model, flex={"patience_s": patience_s}, **more)


@in_a_loop
async def test_flex_gives_the_rows_of_live_calls_by_both_apis_at_half_the_price(tmp_path: Path) -> None:
    found, costs = [], []
    for lane, api in (("live", "chat"), ("flex", "chat"), ("flex", "responses")):
        folder = tmp_path / f"{lane}-{api}"
        folder.mkdir()
        write_input(folder, TEXTS)
        async with endpoint_with() as endpoint:
            summary = await label(settings_for(folder, endpoint.base_url, model={"lane": lane, "api": api}))
            again = await label(settings_for(folder, endpoint.base_url, model={"lane": "flex", "api": api}))
        assert (summary.exit_code, summary.labelled, summary.calls) == (0, 40, 40)
        assert (again.exit_code, again.calls) == (0, 0), "another lane asks for no record again"
        found.append(rows_in(folder))
        costs.append(summary.cost_usd)
    assert found[0] == found[1] == found[2]
    assert costs[1] == costs[2] == pytest.approx(costs[0] / 2)


@pytest.mark.parametrize("form", ["429", "498"])
@pytest.mark.parametrize("price", [None, {"input": 1.0, "output": 4.0}])
@in_a_loop
async def test_each_answer_costs_what_its_tier_costs(tmp_path: Path, form: str, price: dict[str, float] | None) -> None:
    write_input(tmp_path, TEXTS)
    async with endpoint_with(flex_full=0.4, flex_form=form) as endpoint:
        settings = flex_settings(tmp_path, endpoint.base_url, model={"price": price} if price else {})
        summary = await label(settings)
        refused = endpoint.books.totals().failed["no_room"]
    assert (summary.exit_code, summary.labelled, summary.calls) == (0, 40, 40 + refused)
    flex, usage = summary.lanes["flex"], summary.usage
    assert (flex["answers"] + flex["standard"], flex["other"]) == (40, 0)
    assert 0 < flex["standard"] <= refused
    listed = price_of("gpt-6-luna")
    assert listed is not None
    rates = (price["input"], price["output"]) if price else (listed.input, listed.output)
    full_usd = (usage.prompt * rates[0] + usage.completion * rates[1]) / 1e6
    assert summary.cost_usd == pytest.approx(full_usd - flex["saved_usd"])
    # All requests of this run are of nearly one size.
    assert flex["saved_usd"] == pytest.approx(full_usd / 2 * flex["answers"] / 40, rel=0.02)
    assert flex["cost_usd"] == pytest.approx(flex["saved_usd"])
    told = (
        f"{flex['answers']} answers ({flex['answers'] / 40:.1%}) at the flex tier, {flex['standard']} at the standard"
    )
    assert told in "\n".join(closing_lines(summary))
    assert told in "\n".join(status_lines((await astatus(tmp_path / "run")).facts))
    assert json.loads((tmp_path / "run" / "summary.json").read_bytes())["lanes"]["flex"] == flex
    assert (await verify(tmp_path / "run")).ok
    page = await write_report(tmp_path / "run")
    told = f"{flex['answers'] / 40:.1%} of the calls, {flex['standard']} more at the standard tier"
    assert told in Path(page.path).read_text(encoding="utf-8")


@in_a_loop
async def test_the_budget_holds_where_calls_cost_twice_what_was_hoped_for(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS)
    async with endpoint_with(flex_full=1.0) as endpoint:
        whole = await label(flex_settings(tmp_path, endpoint.base_url))
        assert whole.cost_usd is not None
        budget = whole.cost_usd * 0.6
        cut = flex_settings(tmp_path, endpoint.base_url, output={"dir": str(tmp_path / "cut")},
                            limits={"budget_usd": budget})  # fmt: skip
        summary = await label(cut)
    assert "budget_usd" in summary.reason
    assert summary.cost_usd is not None
    assert 0 < summary.cost_usd <= budget


@pytest.mark.parametrize("votes", [1, 3])
@in_a_loop
async def test_repairs_votes_and_gold_take_the_same_road(tmp_path: Path, votes: int) -> None:
    write_input(tmp_path, TEXTS)
    gold = tmp_path / "gold.csv"
    gold.write_text("id,text,sentiment\ng1,all is good,positive\ng2,all is bad,negative\n")
    quality = {"gold": str(gold), "every": 10, **({"votes": votes} if votes > 1 else {})}
    async with endpoint_with(flex_full=0.3, faults={"bad_label": 0.2}) as endpoint:
        summary = await label(flex_settings(tmp_path, endpoint.base_url, quality=quality, limits={"max_repairs": 9}))
        answers = endpoint.books.totals()
    assert (summary.exit_code, summary.labelled) == (0, 40)
    assert summary.gold is not None
    flex = summary.lanes["flex"]
    assert flex["answers"] + flex["standard"] == answers.answered + answers.failed["bad_label"]


def test_conversations_take_the_same_road(tmp_path: Path) -> None:
    found = []
    for lane in ("live", "flex"):
        user = talking(tmp_path / lane, "rehearsal", 8)
        user.configure(model={"name": "gpt-6-luna", "base_url": "rehearsal", "lane": lane}, rehearsal={"latency_ms": 1})
        user.run(code=1)
        found.append({key: (one.label, one.attempts, one.usage) for key, one in outcomes(user).items()})
    assert found[0] == found[1]
    flex = json.loads((user.run_dir / "summary.json").read_bytes())["lanes"]["flex"]
    assert flex["answers"] == sum(attempts for _, attempts, _ in found[1].values()) > 8


class Fatal(Rehearsal):
    """An endpoint that has the process killed whose call is the nth without room."""

    left = 0
    process: Fork | None = None

    async def _answer(self, request: web.BaseRequest, api: Any) -> web.StreamResponse:
        answer = await super()._answer(request, api)
        self.left -= answer.status == 429
        if self.left == 0 and self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process = None
        return answer


CONFIG = f"""
[input]
path = "in.csv"
key = "id"
[task]
prompt = "{{{{ text }}}}"
[task.labels]
sentiment = {json.dumps(LABELS)}
[model]
name = "gpt-6-luna"
base_url = "BASE_URL"
lane = "flex"
[limits]
concurrency = 4
[output]
dir = "run"
report = false
"""


@in_a_loop
async def test_a_process_that_is_killed_while_records_wait_for_room_loses_nothing(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS)

    async def run(endpoint: Rehearsal, process_of: Any = lambda _: None) -> int | None:
        (tmp_path / "config.toml").write_text(CONFIG.replace("BASE_URL", endpoint.base_url))
        process = Fork(["run", "config.toml"], tmp_path, environment({}), subprocess.DEVNULL)
        process_of(process)
        await asyncio.to_thread(process.communicate)
        return process.returncode

    async with Fatal(RehearsalOptions(latency_ms=0, flex_full=0.4)) as endpoint:
        endpoint.left = 8
        assert await run(endpoint, lambda process: setattr(endpoint, "process", process)) == -signal.SIGKILL
        first = endpoint.books.totals().answered
    with sqlite3.connect(tmp_path / "run" / "ledger.db") as ledger:
        (kept,) = ledger.execute("SELECT COUNT(*) FROM outcomes").fetchone()
    assert first - 4 <= kept <= first < 40, "no more is lost than was on the wire"
    async with endpoint_with() as endpoint:
        assert await run(endpoint) == 0
        assert answered_twice(endpoint) == []
        assert endpoint.books.totals().answered == 40 - kept
    assert len(rows_in(tmp_path)) == 40
    assert (await verify(tmp_path / "run")).ok
    flex = (await astatus(tmp_path / "run"))["lanes"]["flex"]
    # What earlier sessions had is counted too, an answer that the kill took perhaps as well.
    assert 40 - 4 <= flex["answers"] <= 40 + 4


def test_a_tier_in_the_parameters_contradicts_the_lane(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'service_tier.*model\.lane = "flex" sets it for each call'):
        settings_for(tmp_path, "rehearsal", model={"lane": "flex", "parameters": {"service_tier": "default"}})
    assert settings_for(tmp_path, "rehearsal", model={"lane": "flex"}).model.timeout_s == 900
    assert settings_for(tmp_path, "rehearsal", model={"lane": "flex", "timeout_s": 30}).model.timeout_s == 30
    assert settings_for(tmp_path, "rehearsal", model={"lane": "live"}).model.timeout_s == 60


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"base_url": "https://api.groq.com/openai/v1"}, "costs the same"),
        ({"base_url": "http://127.0.0.1:9/v1"}, "is not known"),
        ({"base_url": "https://api.openai.com/v1", "name": "gpt-4o-mini"}, "no flex price for gpt-4o-mini"),
        ({"lane": "live", "parameters": {"service_tier": "flex"}}, 'model.lane = "flex" waits for it'),
        ({"base_url": "rehearsal", "timeout_s": 60}, "model.timeout_s = 60 is short"),
        ({"base_url": "https://here.openai.azure.com/openai/v1"}, None),
        ({"base_url": "rehearsal"}, None),
    ],
)
@in_a_loop
async def test_check_tells_where_flex_is_doubtful(tmp_path: Path, model: dict[str, Any], told: str | None) -> None:
    write_input(tmp_path, TEXTS)
    settings = settings_for(tmp_path, "rehearsal", model={"lane": "flex", **model})
    (flex,) = (one for one in await check(settings, online=False) if one.name == "flex")
    assert flex.ok is (None if told else True)
    assert (told or "wait 600 s") in flex.detail


@in_a_loop
async def test_plan_shows_flex_beside_the_other_lanes(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS)
    found = await plan(settings_for(tmp_path, "rehearsal", model={"lane": "flex"}), quiet=True)
    live, flex, batch = found.lanes
    assert [lane.chosen for lane in (live, flex, batch)] == [False, True, False]
    assert live.cost is not None
    assert flex.cost is not None
    assert flex.cost.middle == pytest.approx(live.cost.middle / 2)
    assert "no room" in flex.note


@in_a_loop
async def test_a_model_without_flex_stops_the_run_and_says_what_to_set(tmp_path: Path) -> None:
    write_input(tmp_path, TEXTS)

    class NoFlex(Rehearsal):
        async def _answer(self, request: web.BaseRequest, api: Any) -> web.StreamResponse:
            if "flex" not in await request.text():
                return await super()._answer(request, api)
            error = {"message": "Unsupported service_tier: flex", "type": "invalid_request_error"}
            return web.json_response({"error": error}, status=400)

    async with NoFlex(RehearsalOptions(latency_ms=0)) as endpoint:
        summary = await label(flex_settings(tmp_path, endpoint.base_url))
    assert (summary.exit_code, summary.labelled, summary.rejected) == (2, 0, 0)
    assert 'set model.lane = "live"' in summary.next_step
