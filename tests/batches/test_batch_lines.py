"""What a server writes that is not quite as it should be: it is read, since it was paid for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from batches.lanes import answered_twice, in_a_loop, label, settings_for, write_input

from pipeline.rehearsal import Rehearsal, RehearsalOptions

ODD = {
    "mark": lambda content: b"\xef\xbb\xbf" + content,
    "half emoji": lambda content: content.replace(b'"custom_id"', b'"note":"\\ud83d","custom_id"'),
    "no utf-8": lambda content: content.replace(b'"custom_id"', b'"note":"\xff","custom_id"'),
}


class Odd(Rehearsal):
    """An endpoint that changes the content of its files, and may have no list of files."""

    change: Any = staticmethod(lambda content: content)
    lost_uploads = 0
    #: So many files are odd: where none of their lines is read, the run ends all the same, and the test fails.
    changes = 2

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.method == "GET" and request.path.endswith("/files"):
            return web.json_response({"error": {"message": "no such method"}}, status=405)
        answer = await super()._handle(request)
        if request.method == "POST" and request.path.endswith("/files") and self.lost_uploads:
            self.lost_uploads -= 1
            return web.json_response({"error": {"message": "try again"}}, status=503)
        return answer

    def _file(self, method: str, file_id: str, rest: str = "") -> web.StreamResponse:
        file = self._store.file(file_id)
        if rest == "content" and file is not None and self.changes:
            self.changes -= 1
            return web.Response(
                body=self.change(file.path.read_bytes()), headers={"x-labelpipe-rehearsal": "simulated"}
            )
        return super()._file(method, file_id, rest)


@pytest.mark.parametrize("odd", ODD)
@in_a_loop
async def test_an_odd_line_is_read_and_its_record_is_not_asked_again(tmp_path: Path, odd: str) -> None:
    write_input(tmp_path, [f"text number {number}" for number in range(12)])
    async with Odd(RehearsalOptions(latency_ms=0, batch_s=0.05)) as endpoint:
        endpoint.change = ODD[odd]
        summary = await label(settings_for(tmp_path, endpoint.base_url))
        assert (summary.exit_code, summary.labelled) == (0, 12)
        assert answered_twice(endpoint) == []


@in_a_loop
async def test_a_server_without_a_list_of_files_is_sent_the_file_again(tmp_path: Path) -> None:
    write_input(tmp_path, ["good", "bad"])
    async with Odd(RehearsalOptions(latency_ms=0, batch_s=0.05)) as endpoint:
        endpoint.lost_uploads = 1
        summary = await label(settings_for(tmp_path, endpoint.base_url))
    assert (summary.exit_code, summary.labelled) == (0, 2)


@in_a_loop
async def test_files_that_cannot_be_read_stop_the_run_and_are_fetched_again(tmp_path: Path) -> None:
    write_input(tmp_path, [f"text number {number}" for number in range(12)])
    async with Odd(RehearsalOptions(latency_ms=0, batch_s=0.05)) as endpoint:
        endpoint.change = lambda content: b"<html>" + content.replace(b"{", b"<")
        endpoint.changes = 1
        settings = settings_for(tmp_path, endpoint.base_url, batch={"first_part": 12})
        summary = await label(settings)
        assert summary.labelled == 0
        assert "none of the 12 lines of batch" in summary.reason
        assert (await label(settings)).labelled == 12
        assert endpoint.books.totals().calls == 12
