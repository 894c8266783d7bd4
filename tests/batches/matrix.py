"""Tasks of every kind through the batch lane, with faults and kills; the books of the endpoint say what was paid."""

from __future__ import annotations

import asyncio
import csv
import json
import random
import shutil
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web
from batches.lanes import LABELS
from end_to_end.forked import Fork
from end_to_end.stage import Project, environment, project
from end_to_end.talks import TALK, TOOLS

from pipeline.codec import dumps, loads
from pipeline.rehearsal import Rehearsal, RehearsalOptions
from pipeline.rehearsal.call_handler import CallFate
from pipeline.rehearsal.replies import ApiFormat, Reply
from pipeline.runner import verify

SHAPES = Path(__file__).parents[2] / "data" / "shapes"
ROWS = {
    "type": "object",
    "required": ["names"],
    "properties": {
        "names": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["kind"],
                "properties": {"kind": {"type": "string", "enum": ["person", "place"]}},
            },
        }
    },
}
EXAMPLE = {"id": "e", "text": "a dull one", "label": {"label": "neutral"}}
#: What a task has beside a prompt. Each answer of a callback is noted before it does anything.
TASKS: dict[str, dict[str, Any]] = {
    "labels": {"task": {"labels": {"label": LABELS}, "callback": "talk:note"}},
    "talk": {"task": {"tools": TOOLS, "callback": "talk:look_up", "max_turns": 3, "reply": "words"}},
    "votes": {"task": {"labels": {"label": LABELS}}, "quality": {"votes": 3}, "parameters": {"temperature": 1.0}},
    "voters": {
        "task": {"labels": {"label": LABELS}},
        "quality": {"voters": [{"model": "gpt-5-mini", "price": {"input": 1, "output": 2}}, {"model": "gpt-6-sol"}]},
    },
    "gold": {"task": {"labels": {"label": LABELS}}, "quality": {"gold": "gold.csv", "every": 5}},
    "images": {"task": {"labels": {"label": LABELS}, "media": {"images": ["shape"], "root": "."}}},
    "tools": {"task": {"tools": TOOLS, "call": "some", "callback": "talk:note"}},
    "rows": {"task": {"function": {"name": "set_names", "parameters": ROWS}, "rows": "names"}},
    "dupes": {"task": {"labels": {"label": LABELS}, "callback": "talk:note"}, "same": 3},
    "apart": {"task": {"labels": {"label": LABELS}, "dedupe": False}, "same": 3},
    "examples": {"task": {"labels": {"label": LABELS}, "examples": [EXAMPLE]}, "output": {"order": "input"}},
}
BAD = {"bad_label": 0.1, "no_tool": 0.05, "bad_json": 0.05}
#: What goes wrong with batches, a group at a time.
FAULTS: dict[str, dict[str, float]] = {
    "none": {},
    "lost": {"batch_lost": 0.4, "upload_lost": 0.4},
    "ends": {"batch_expired": 0.3, "batch_all_failed": 0.1, "batch_empty_error_file": 0.2, "batch_no_counts": 0.2},
    "lines": {"line_500": 0.1, "line_zero": 0.1, "line_missing": 0.1, "line_twice": 0.2, "batch_empty_error_id": 0.3},
}


#: The model of the run.
OWN = "gpt-6-luna"
#: What a session of a mixed scene may be.
WORDS = (["run"], ["run", "--no-wait"], ["cancel"])


@dataclass(frozen=True, slots=True)
class Scene:
    """A task, and what happens to it. `kills` processes are killed before one may end; `mixed`: some of them cancel."""

    task: str
    finish: str = "live"
    api: str = "chat"
    faults: str = "none"
    kills: int = 0
    seed: int = 0
    records: int = 24
    calls: dict[str, float] = field(default_factory=dict)
    mixed: bool = False


class Keeper(Rehearsal):
    """An endpoint that counts how often each request was paid, by lane, and kills at the nth request."""

    def __init__(self, options: RehearsalOptions) -> None:
        super().__init__(options)
        self.paid: dict[str, Counter[bytes]] = {"batch": Counter(), "live": Counter()}
        self.to_kill: tuple[Fork, int, float] | None = None
        draw = self._handler._faults.draw
        self._asked: tuple[str, bool] = ("", True)
        nth: Counter[str] = Counter()

        def drawn(_: str, __: int, text: str) -> CallFate:
            # By what is asked, and how often that was: so the same requests have the same fate in each lane. A kill can
            # lose a repair that is asked live, and only a first request is asked in batches alone: no repair is bad.
            model, is_first = self._asked
            nth[text] += model == OWN  # other models' votes are asked live, once
            return draw(text, nth[text] if model == OWN else 1, text) if is_first else CallFate(None, 1.0)

        self._handler._faults.draw = drawn  # type: ignore[method-assign]
        serve, serve_line = self._handler.serve, self._handler.serve_line

        def line(raw: bytes, api: ApiFormat) -> Reply:
            self._asked = _asked(raw)
            return self._noted("batch", raw, serve_line(raw, api))

        async def live(raw: bytes, *rest: Any) -> Reply:
            self._asked = _asked(raw)  # the fate is drawn before anything is awaited
            return self._noted("live", raw, await serve(raw, *rest))

        self._handler.serve_line, self._handler.serve = line, live  # type: ignore[method-assign]

    def _noted(self, lane: str, raw: bytes, reply: Reply) -> Reply:
        if reply.status == 200:
            body = loads(raw)
            self.paid[lane][dumps([body["model"], _without_names(body.get("messages") or body.get("input"))])] += 1
        return reply

    @property
    def all_paid(self) -> Counter[bytes]:
        """How often each request was paid."""
        return self.paid["batch"] + self.paid["live"]

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if self.to_kill is not None:
            process, left, wait_s = self.to_kill
            self.to_kill = (process, left - 1, wait_s) if left > 1 else None
            if left == 1:
                asyncio.get_running_loop().call_later(wait_s, process.send_signal, signal.SIGKILL)
        return await super()._handle(request)


def _without_names(said: Any) -> Any:
    """What is said, without what a server makes anew each time: names of calls, and reasoning."""
    if isinstance(said, list):
        return [_without_names(one) for one in said if not (isinstance(one, dict) and one.get("type") == "reasoning")]
    if isinstance(said, dict):
        names = ("id", "call_id", "tool_call_id")
        return {name: _without_names(value) for name, value in said.items() if name not in names}
    return said


def _asked(raw: bytes) -> tuple[str, bool]:
    """The model of a request, and whether it is a first one."""
    return loads(raw).get("model"), _is_first(raw)


def _is_first(body: bytes) -> bool:
    """Whether a request is a record's first one: nothing was answered before it."""
    return b'"assistant"' not in body and b'"function_call' not in body


def staged(folder: Path, base_url: str, scene: Scene, lane: str) -> Project:
    """The project of a scene in a lane."""
    kind = dict(TASKS[scene.task])
    task = {"labels": None, "callback": None, "prompt": "{{ text }}", **kind["task"]}
    same = kind.get("same", 1)
    made = project(
        folder,
        base_url,
        count=1,
        task=task,
        batch={"poll_s": 0.02, "first_part": 3, "part_records": 7, "finish": scene.finish},
        model={
            "lane": lane,
            "api": scene.api,
            "parameters": {"max_completion_tokens": 200, **kind.get("parameters", {})},
        },
        limits={"max_attempts": 40, "max_repairs": 9, "concurrency": 4},
        output={**kind.get("output", {}), "report": False},
        **({"quality": kind["quality"]} if "quality" in kind else {}),
    )
    (folder / "talk.py").write_text(TALK + "\n\nnote.extra_columns = ()\n", encoding="utf-8")
    shapes = sorted(SHAPES.glob("*.png"))
    for shape in shapes:
        shutil.copy(shape, folder)
    made.give(
        {"id": f"r{n:03}", "text": f"r{n // same:03} is good, or not", "shape": shapes[n % len(shapes)].name}
        for n in range(scene.records)
    )
    with (folder / "gold.csv").open("w", newline="") as file:
        csv.writer(file).writerows(
            [["id", "text", "label"], *([f"g{n}", f"g{n} is bad", "negative"] for n in range(4))]
        )
    return made


def rows_of(user: Project) -> list[tuple[str, ...]]:
    """The rows, sorted where they come as they are done; without what tells who answered when."""
    rows = [tuple(value for name, value in row.items() if name != "simulated") for row in user.labels()]
    return rows if user.config["output"].get("order") == "input" else sorted(rows)


async def ended(process: Fork) -> tuple[int | None, str]:
    out, err = await asyncio.to_thread(process.communicate)
    return process.returncode, out + err


async def played(folder: Path, scene: Scene) -> dict[str, Any]:
    """Play a scene in both lanes, and prove that batches have given what live calls give, and paid nothing twice."""
    bad = {} if scene.task == "apart" else BAD  # whose answer is the bad one of three is a matter of turns
    options = {"latency_ms": 0, "seed": scene.seed, "faults": {**bad, **scene.calls}}
    async with Keeper(RehearsalOptions(**options)) as endpoint:
        live = staged(folder / "live", endpoint.base_url, scene, "live")
        wanted, told = await ended(Fork(["run", "job.toml"], live.folder, environment()))
        assert wanted in (0, 1), told  # a conversation may not come to an end
        expected = endpoint.all_paid
    rng = random.Random(f"{scene}")
    async with Keeper(RehearsalOptions(**options, batch_s=0.06, batch_faults=FAULTS[scene.faults])) as endpoint:
        user = staged(folder / "batch", endpoint.base_url, scene, "batch")
        killed = 0
        for left in range(scene.kills, -1, -1):
            words = rng.choice(WORDS) if left and scene.mixed else ["run"]
            process = Fork([*words, "job.toml", "--json"], user.folder, environment())
            if left:
                endpoint.to_kill = (process, rng.randint(1, 14), rng.choice([0.0, rng.uniform(0, 0.05)]))
            code, told = await ended(process)
            endpoint.to_kill = None
            killed += code == -signal.SIGKILL
            assert code == wanted or (left and code in ((0, 1, 3, -9) if scene.mixed else (-9,))), told
        more = endpoint.all_paid - expected
        assert not {body for body in more if body in endpoint.paid["batch"] and _is_first(body)}
        if scene.finish == "batch" and scene.task != "voters":
            assert not more
        lost = more.total()
        assert lost <= 4 * killed
        tokens = endpoint.books.totals().tokens
    assert rows_of(user) == rows_of(live)
    assert {row["id"] for row in user.failed()} == {row["id"] for row in live.failed()}
    assert (await verify(user.folder / "run")).ok
    summary = json.loads(told[told.index("{") : told.rindex("}") + 1])
    used = summary["usage"]["prompt"] + summary["usage"]["completion"]
    assert used <= tokens
    if not killed or (scene.finish == "batch" and scene.task != "voters"):
        assert used == tokens, (used, tokens)  # what is asked live can be lost with a process, and is paid
    if scene.kills == 0 and (user.folder / "noted.jsonl").exists():
        noted = [loads(line)["key"] for line in (user.folder / "noted.jsonl").read_text().splitlines()]
        assert len(set(noted)) == len(noted)
    assert not list((user.folder / "run" / "batches").iterdir())
    return {"killed": killed, "lost_live": lost, "batches": summary["lanes"]["batch"], "calls": summary["calls"]}
