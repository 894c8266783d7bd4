"""What the prompt cache did for a run: read, written, saved and paid, on the screen and in summary.json."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from end_to_end.stage import Endpoint, Project

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
    for text in (told, shown):
        assert f"{usage['cached']:,} cached, {saved}; {written:,} written to the cache, {more})" in text


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
