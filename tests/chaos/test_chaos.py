"""Real runs, killed at random moments, resumed until they are done; then the endpoint's books are read.

The scenes of a round go on side by side, since starting a process is most of their work. `CHAOS_SEED=...` repeats
their dice, `CHAOS_ROUNDS=20` throws them so many times.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from end_to_end.stage import Endpoints, project, rows
from killing import CONCURRENCY, FAULTS, Scene, prove, read_jsonl

pytestmark = pytest.mark.chaos

LATENCY = {"latency_ms": 20.0, "latency_jitter": 0.5, "faults": FAULTS}

TOOL = """
import asyncio
import pathlib


class Tool:
    schema = {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": [f"c{number:02}" for number in range(24)]}},
        "required": ["label"],
        "additionalProperties": False,
    }
    extra_columns = ("version",)

    async def __call__(self, label, record):
        await asyncio.sleep(0.003)
        return {"version": pathlib.Path("version").read_text()}
"""


def killed_often(folder: Path, endpoints: Endpoints, seed: int) -> Scene:
    """22 times SIGKILL; then the run is let finish."""
    endpoint = endpoints.open(**LATENCY)
    given = rows(900)
    scene = Scene(project(folder, endpoint.base_url, count=len(given)), endpoint, given, seed)
    for _ in range(22):
        scene.strike("run", "job.toml", most_calls=24)
    scene.user.run()
    return scene


def in_order(folder: Path, endpoints: Endpoints, seed: int) -> Scene:
    """Rows in the input's order, in two formats: a kill leaves the files of the last session that came to its end."""
    endpoint = endpoints.open(**LATENCY)
    given = rows(240)
    output = {"order": "input", "formats": ["csv", "jsonl"]}
    scene = Scene(project(folder, endpoint.base_url, count=len(given), output=output), endpoint, given, seed + 1)
    wanted = [row["id"] for row in given]
    place = {key: at for at, key in enumerate(wanted)}
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        kill = scene.strike("run", "job.toml", most_calls=32, number=number)
        assert list(kill.csv_keys) == sorted(kill.csv_keys, key=place.__getitem__), f"{kill.how}: out of order"
        lines = read_jsonl(scene.user.run_dir / "labels.jsonl")
        assert [line["id"] for line in lines] == list(kill.csv_keys), f"{kill.how}: the JSONL has other rows"
    scene.user.run()
    assert [row["id"] for row in scene.user.labels()] == wanted
    return scene


def by_all_signals(folder: Path, endpoints: Endpoints, seed: int) -> Scene:
    """Some ask, some do not; sometimes while the one before has left something to mend."""
    endpoint = endpoints.open(**LATENCY)
    given = rows(300)
    scene = Scene(project(folder, endpoint.base_url, count=len(given)), endpoint, given, seed + 2)
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        scene.strike("run", "job.toml", most_calls=26, number=number)
    scene.user.run()
    return scene


def in_retry_and_replay(folder: Path, endpoints: Endpoints, seed: int) -> Scene:
    """A finished run with records to retry, then one whose callback has been mended."""
    endpoint = endpoints.open(**LATENCY, poison={"BAD": "refusal"})
    given = [{**row, "text": f"BAD {row['text']}"} if at % 4 == 0 else row for at, row in enumerate(rows(400))]
    user = project(folder, endpoint.base_url, task={"labels": None, "python": "tool:Tool"})
    user.give(given)
    (folder / "tool.py").write_text(TOOL, encoding="utf-8")
    (folder / "version").write_text("1", encoding="utf-8")
    assert user.run(code=1)["rejected"] == 100
    # While a callback works on an answer, the next call may leave: one for each worker.
    scene = Scene(user, endpoints.again(endpoint, **LATENCY), given, seed + 3, most_wasted=2 * CONCURRENCY + 2)
    for _ in range(4):
        scene.strike("retry", "job.toml", most_calls=12)
    user.do("retry", "job.toml").expect(0)
    (folder / "version").write_text("2", encoding="utf-8")
    for _ in range(4):
        scene.strike_after("replay begins", "replay", "job.toml", most_s=1.5)
    user.do("replay", "job.toml").expect(0)
    return scene


SCENES: list[Callable[[Path, Endpoints, int], Scene]] = [killed_often, in_order, by_all_signals, in_retry_and_replay]


@pytest.fixture(scope="module")
def begun(
    tmp_path_factory: pytest.TempPathFactory, endpoints: Endpoints, round_seed: int
) -> Iterator[dict[str, Future[Scene]]]:
    """All scenes of a round, begun."""
    folder = tmp_path_factory.mktemp("chaos")
    with ThreadPoolExecutor(len(SCENES)) as stage:
        yield {scene.__name__: stage.submit(scene, folder / scene.__name__, endpoints, round_seed) for scene in SCENES}


@pytest.fixture
def scenes(begun: dict[str, Future[Scene]], seed: int) -> dict[str, Future[Scene]]:
    """The scenes, and their seed where a test of them fails."""
    return begun


def test_twenty_kills_lose_nothing_and_pay_for_nothing_twice(scenes: dict[str, Future[Scene]]) -> None:
    scene = scenes["killed_often"].result()
    assert sum(kill.code == -signal.SIGKILL for kill in scene.kills) >= 20, f"{scene}: it was done before"
    prove(scene)


def test_rows_in_the_inputs_order_survive_kills(scenes: dict[str, Future[Scene]]) -> None:
    scene = scenes["in_order"].result()
    prove(scene)
    labels = scene.user.labels()
    assert [row["id"] for row in labels] == [row["id"] for row in scene.rows]
    lines = read_jsonl(scene.user.run_dir / "labels.jsonl")
    assert [{**line, "simulated": json.dumps(line["simulated"])} for line in lines] == labels


def test_a_signal_that_asks_costs_nothing_between_kills(scenes: dict[str, Future[Scene]]) -> None:
    scene = scenes["by_all_signals"].result()
    prove(scene)
    asking = [kill for kill in scene.kills if "SIGKILL" not in kill.how]
    assert len(asking) == 4
    for kill in asking:
        assert kill.code == 130, kill.how
        assert not kill.wasted, f"{kill.how}: paid for and not kept"


def test_retry_and_replay_survive_kills(scenes: dict[str, Future[Scene]]) -> None:
    scene = scenes["in_retry_and_replay"].result()
    prove(scene)
    assert {row["version"] for row in scene.user.labels()} == {"2"}
    assert scene.user.failed() == []
    replays = [kill for kill in scene.kills if "replay begins" in kill.how]
    assert len(replays) == 4
    assert len({kill.books_bytes for kill in replays}) == 1, "a replay makes no call, killed or not"
