"""What the prompt cache did for a run: read, written, saved and paid, on the screen and in summary.json."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import Endpoint, Project

from pipeline import RunOptions, RunSummary
from pipeline.errors import ConfigError
from pipeline.parts import panel_of, task_of
from pipeline.planner import check, plan
from pipeline.records import Record
from pipeline.runner import arun, status
from pipeline.settings import Settings
from pipeline.show import plan_lines

Make = Callable[..., Project]
#: Long enough that a server keeps it: 1,024 tokens and more.
SYSTEM = "You help to make training data. " * 200
#: US dollars a million tokens; writing costs 1.25 times as much as the input.
PRICE = {"input": 1.0, "output": 4.0, "cached_input": 0.1, "cache_write": 1.25}
COUNT = 20


def in_dollars(usage: dict[str, int]) -> float:
    """What the tokens cost by that price."""
    fresh = usage["prompt"] - usage["cached"] - usage["cache_write"]
    return (fresh + 0.1 * usage["cached"] + 1.25 * usage["cache_write"] + 4 * usage["completion"]) / 1e6


@pytest.fixture
def runs(make: Make) -> Callable[..., tuple[Project, dict[str, Any]]]:
    """Runs the same records with a model's table laid over; gives the project and its summary."""

    def run(folder: str = "project", **model: Any) -> tuple[Project, dict[str, Any]]:
        user = make(folder, count=COUNT, task={"system": SYSTEM}, model={"price": PRICE, **model})
        return user, user.run()

    return run


def test_a_marked_prefix_is_written_once_and_saves_the_rest(runs: Callable[..., Any], endpoint: Endpoint) -> None:
    """The first call goes alone, so the others find what it wrote."""
    user, summary = runs(cache_breakpoint=True)
    usage = summary["usage"]
    written = usage["cache_write"]
    assert written > 1_600
    assert usage["cached"] == (COUNT - 1) * written
    assert summary["saved_usd"] == pytest.approx(usage["cached"] * 0.9 / 1e6)
    assert summary["cache_write_usd"] == pytest.approx(written * 0.25 / 1e6)
    assert summary["cost_usd"] == pytest.approx(in_dollars(usage))
    assert endpoint.totals()["tokens"] == usage["prompt"] + usage["completion"], "the endpoint billed the same"
    told = user.do("run", "job.toml").expect(0).err
    shown = user.do("status", "run").expect(0).out
    saved, more = f"${summary['saved_usd']:.4f} saved", f"${summary['cache_write_usd']:.4f} more"
    net = f"${summary['saved_usd'] - summary['cache_write_usd']:.4f} saved net"
    for text in (told, shown):
        assert f"{usage['cached']:,} cached, {saved}; {written:,} written to the cache, {more}; {net})" in text


def test_unmarked_the_record_s_own_text_is_written_too(runs: Callable[..., Any]) -> None:
    """A prompt's end comes never again: the money for writing it is lost, and the summary shows it."""
    _, marked = runs("marked", cache_breakpoint=True)
    _, plain = runs("plain")
    assert plain["usage"]["prompt"] == marked["usage"]["prompt"]
    assert plain["usage"]["cache_write"] > marked["usage"]["cache_write"]
    assert plain["cost_usd"] > marked["cost_usd"]
    assert plain["cost_usd"] == pytest.approx(in_dollars(plain["usage"]))


def test_an_older_model_tells_nothing_of_writing(runs: Callable[..., Any]) -> None:
    user, summary = runs(name="gpt-5-mini")
    assert summary["usage"]["cached"] > 0
    assert (summary["usage"]["cache_write"], summary["cache_write_usd"]) == (0, 0)
    assert "written to the cache" not in user.do("status", "run").expect(0).out


# where nothing is said of a mark


def settings_of(folder: Path, count: int = COUNT, **tables: Any) -> Settings:
    """A run at the built-in endpoint, which stands for OpenAI's own API."""
    lines = [f'{{"id": "r{number}", "text": "This is text number {number}."}}\n' for number in range(count)]
    (folder / "in.jsonl").write_text("".join(lines))
    given: dict[str, Any] = {
        "input": {"path": str(folder / "in.jsonl"), "key": "id"},
        "task": {"labels": {"mood": ["good", "bad"]}, "prompt": "{{ text }}", "system": SYSTEM},
        "model": {"name": "gpt-6-luna", "base_url": "rehearsal"},
        "output": {"dir": str(folder / "run"), "report": False},
        "batch": {"poll_s": 0.02, "first_part": 5, "part_records": 10},
    }
    return Settings(**{name: {**given.get(name, {}), **tables.get(name, {})} for name in {**given, **tables}})


def ran(settings: Settings) -> RunSummary:
    return asyncio.run(arun(settings, RunOptions(quiet=True)))


@pytest.mark.parametrize("lane", ["live", "flex", "batch"])
@pytest.mark.parametrize("api", ["chat", "responses"])
def test_the_constant_part_is_written_once_in_each_lane_and_api(tmp_path: Path, lane: str, api: str) -> None:
    settings = settings_of(tmp_path, model={"name": "gpt-6-luna", "base_url": "rehearsal", "lane": lane, "api": api})
    summary = ran(settings)
    written = summary.usage.cache_write
    assert summary.labelled == COUNT
    assert written == pytest.approx(task_of(settings).constant_tokens, rel=0.02)
    assert summary.usage.cached == (COUNT - 1) * written
    share = 1.0 if lane == "live" else 0.5
    assert summary.saved_usd == pytest.approx(summary.usage.cached * share * (0.10 - 0.01) / 1e6)
    assert summary.cache_write_usd == pytest.approx(written * share * 0.025 / 1e6)
    facts = asyncio.run(status(settings.output.dir))
    assert (facts["saved_usd"], facts["cache_write_usd"]) == (summary.saved_usd, summary.cache_write_usd)
    assert facts["lanes"] == summary.lanes
    assert set(facts["lanes"]) == {lane} - {"live"}


def test_a_run_that_began_without_the_mark_asks_for_nothing_again(tmp_path: Path) -> None:
    half = {"requests_per_day": 10, "on_day_limit": "stop"}
    begun = settings_of(tmp_path, model={"name": "gpt-6-luna", "base_url": "rehearsal", "cache_breakpoint": False})
    first = ran(begun.model_copy(update={"limits": begun.limits.model_copy(update=half)}))
    assert (first.labelled, first.usage.cached > 0, task_of(begun).marks_prefix) == (10, True, False)
    second = ran(settings_of(tmp_path))
    assert (second.labelled, second.calls) == (COUNT, COUNT - 10)
    assert second.usage.cache_write > first.usage.cache_write


def test_check_and_plan_say_it_and_the_rest_reads_what_the_pilot_wrote(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, count=300)
    says = {one.name: one.detail for one in asyncio.run(check(settings, online=False))}
    assert "tokens begin each prompt; their end is marked, so that the server keeps them" in says["cache"]
    found = asyncio.run(plan(settings, pilot=10, quiet=True))
    assert found.cached_share > 0.8
    assert [line for line in plan_lines(found) if "  cache        about 1,6" in line and "% of the prompt" in line]
    summary, before = ran(settings), found.cost
    assert summary.cost_usd is not None
    assert before is not None
    assert before.middle == pytest.approx(summary.cost_usd * 290 / 300, rel=0.15)
    off = settings.model_copy(update={"model": settings.model.model_copy(update={"cache_breakpoint": False})})
    says = {one.name: one.detail for one in asyncio.run(check(off, online=False))}
    assert "they are not marked, and so not found again (model.cache_breakpoint: it is false)" in says["cache"]


@pytest.mark.parametrize(
    ("url", "variable", "marks"),
    [
        (None, None, True),
        ("https://api.openai.com/v1", None, True),
        (None, "http://localhost:8000/v1", False),  # the client goes where the variable says
        (None, "https://api.openai.com/v1", True),
        ("http://localhost:8000/v1", None, False),
        ("https://me.openai.azure.com/openai/v1/", None, False),
    ],
)
def test_only_openais_own_api_is_sent_a_mark_that_nobody_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str | None, variable: str | None, marks: bool
) -> None:
    if variable is None:
        monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    else:
        monkeypatch.setenv("OPENAI_BASE_URL", variable)
    settings = settings_of(tmp_path, model={"name": "gpt-6-luna", "base_url": url})
    assert task_of(settings).marks_prefix is marks


def test_a_voter_of_an_older_model_is_sent_no_mark_and_refuses_one_that_is_asked_for(tmp_path: Path) -> None:
    voters = {"voters": [{"prompt": "{{ text }}!"}, {"model": "gpt-5.5"}]}
    for mark in (None, True):
        model = {"name": "gpt-6-luna", "base_url": None, "cache_breakpoint": mark}
        settings = settings_of(tmp_path, model=model, quality=voters)
        if mark:
            with pytest.raises(ConfigError, match=r"gpt-5\.5 takes no mark"):
                task_of(settings)
            continue
        panel = panel_of(settings, task_of(settings))
        assert panel is not None
        record = Record("f", 0, "k", {"text": "fine"}, 1, 0)
        sent = [render(record).parameters for render in panel.voters]
        assert ["prompt_cache_options" in one for one in sent] == [True, False]
