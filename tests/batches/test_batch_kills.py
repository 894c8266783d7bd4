"""A process that is killed at each act of the batch lane, before the server has heard of it and after."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from pathlib import Path

import pytest
from aiohttp import web
from batches.lanes import BATCH, LABELS, answered_twice, in_a_loop, rows_in, write_input
from end_to_end.forked import Fork
from end_to_end.stage import environment

from pipeline.rehearsal import Rehearsal, RehearsalOptions
from pipeline.runner import verify

#: The acts by the words of their requests.
ACTS = {
    "upload": ("POST", "/files"),
    "create": ("POST", "/batches"),
    "look": ("GET", "/batches/"),
    "fetch": ("GET", "/content"),
    "forget": ("DELETE", "/files/"),
}
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
lane = "batch"
[batch]
{"".join(f"{name} = {value}{chr(10)}" for name, value in BATCH.items())}
[output]
dir = "run"
report = false
"""


class Fatal(Rehearsal):
    """An endpoint that has the process killed whose request of this kind comes for the nth time."""

    act: tuple[str, str] = ("", "")
    nth = 0
    after = False
    process: Fork | None = None

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        method, words = self.act
        meant = request.method == method and (request.path.endswith(words) or words in request.path)
        self.nth -= meant
        is_fatal = meant and self.nth == 0 and self.process is not None
        if is_fatal and not self.after:
            self._kill()
        answer = await super()._handle(request)
        if is_fatal and self.after:
            self._kill()
        return answer

    def _kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)


async def _ended(process: Fork) -> int | None:
    await asyncio.to_thread(process.communicate)
    return process.returncode


@pytest.mark.chaos
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("act", ACTS)
@in_a_loop
async def test_no_act_is_lost_or_done_twice_for_a_kill(tmp_path: Path, act: str, after: bool) -> None:
    write_input(tmp_path, [f"text number {number}, which is good" for number in range(40)])
    async with Fatal(RehearsalOptions(latency_ms=0, batch_s=0.1)) as endpoint:
        (tmp_path / "config.toml").write_text(CONFIG.replace("BASE_URL", endpoint.base_url))

        def start() -> Fork:
            return Fork(["run", "config.toml"], tmp_path, environment({}), subprocess.DEVNULL)

        endpoint.act, endpoint.after = ACTS[act], after
        for endpoint.nth in (1, 2):
            endpoint.process = start()
            assert await _ended(endpoint.process) == -signal.SIGKILL
        endpoint.process = None
        assert await _ended(start()) == 0
        assert len(rows_in(tmp_path)) == 40
        text = (tmp_path / "run" / "labels.csv").read_text()
        assert text.count(",true\n") == 40, "also those whose answers an earlier session has collected are simulated"
        assert answered_twice(endpoint) == []
        assert endpoint.books.totals().calls == 40
    assert (await verify(tmp_path / "run")).ok
