"""Serves files and batches: as much of OpenAI's Batch API as a client needs, with the failures that occur in practice.

Its objects have the fields of `openai.types.Batch` and `FileObject`. A batch takes `batch_s` seconds. Its lines are
all answered at once at the end. If it is canceled, the lines that would be done by then are answered. `batch_faults`
gives the probability of each of BATCH_FAULTS, drawn by seed and number.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from pipeline.codec import JSONDecodeError, dumps, loads
from pipeline.rehearsal.call_handler import CallHandler
from pipeline.rehearsal.faults import OF_BATCH, OF_FILE, OF_LINE, draw_kind
from pipeline.rehearsal.options import RehearsalOptions
from pipeline.rehearsal.replies import ApiFormat, ErrorReply, Reply, invalid
from pipeline.rehearsal.request_parser import CHARS_A_TOKEN
from pipeline.rehearsal.seeded_random import SeededRandom

#: Lines that are answered before the event loop gets a turn.
STEP = 100
#: Status -> the field of a batch that records when it was reached.
_STAMPS = {
    "in_progress": "in_progress_at",
    "finalizing": "finalizing_at",
    "completed": "completed_at",
    "failed": "failed_at",
    "expired": "expired_at",
    "cancelling": "cancelling_at",
    "cancelled": "cancelled_at",
}
_OVER = frozenset({"failed", "completed", "expired", "cancelled"})
_WINDOW_S = 24 * 3600


@dataclass(slots=True)
class _File:
    """A file on the endpoint's disk."""

    id: str
    name: str
    purpose: str
    path: Path
    created_at: float

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.path.stat().st_size,
            "created_at": int(self.created_at),
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


@dataclass(slots=True)
class _Batch:
    """A batch. `lines` is the number of its requests; `tokens` is what it adds to the queue."""

    id: str
    number: int
    file: _File
    api: ApiFormat
    endpoint: str
    metadata: Mapping[str, str]
    began: float
    created_at: float
    fault: str | None
    lines: int = 0
    tokens: int = 0
    status: str = "validating"
    stamps: dict[str, int] = field(default_factory=dict)
    errors: list[dict[str, Any]] = field(default_factory=list)
    output_id: str | None = None
    error_id: str | None = None
    completed: int = 0
    failed: int = 0
    usage: list[int] = field(default_factory=lambda: [0, 0])
    model: str | None = None
    answering: bool = False

    def as_json(self) -> dict[str, Any]:
        stamps = {name: self.stamps.get(name) for name in _STAMPS.values()}
        prompt, completion = self.usage
        usage = {
            "input_tokens": prompt, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": completion, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + completion,
        }  # fmt: skip
        counts = {"total": self.lines, "completed": self.completed, "failed": self.failed}
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.model,
            "errors": {"object": "list", "data": self.errors} if self.errors else None,
            "input_file_id": self.file.id,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.output_id,
            "error_file_id": self.error_id,
            "created_at": int(self.created_at),
            "expires_at": int(self.created_at) + _WINDOW_S,
            **stamps,
            "request_counts": None if self.fault == "batch_no_counts" else counts,
            "usage": usage if self.status in _OVER and prompt + completion else None,
            "metadata": dict(self.metadata) or None,
        }


class BatchStore:
    """The files and batches of an endpoint."""

    def __init__(
        self,
        options: RehearsalOptions,
        handler: CallHandler,
        apis: Mapping[str, ApiFormat],
        clock: Callable[[], float],
    ) -> None:
        self._options = options
        self._handler = handler
        self._dialects = apis
        self._clock = clock
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        # Mutable state:
        self._numbers = itertools.count(1)
        self._files: dict[str, _File] = {}
        self._batches: dict[str, _Batch] = {}
        self._answering: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Stop answering and remove the files. May be called twice."""
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    # -- files ---------------------------------------------------------------------------------------------------

    def new_path(self) -> Path:
        """Return a path for an upload."""
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="labelpipe-rehearsal-")
        return Path(self._folder.name) / f"{next(self._numbers):08}.jsonl"

    def add_file(self, path: Path, name: str, purpose: str) -> dict[str, Any]:
        """Register an uploaded file."""
        file = _File(f"file-{path.stem}", name, purpose, path, time.time())
        self._files[file.id] = file
        return file.as_json()

    def is_upload_lost(self, file: Mapping[str, Any]) -> bool:
        """Whether the response to this upload is lost."""
        chance = SeededRandom("file", self._options.seed, file["id"]).unit()
        return draw_kind(self._options.batch_faults, chance, OF_FILE) is not None

    def file(self, file_id: str) -> _File | None:
        """Return the file with this id."""
        return self._files.get(file_id)

    def delete(self, file_id: str) -> dict[str, Any]:
        """Delete a file."""
        file = self._files.pop(file_id, None)
        if file is not None:
            file.path.unlink(missing_ok=True)
        return {"id": file_id, "object": "file", "deleted": file is not None}

    def files(self, purpose: str | None, after: str | None, limit: int) -> dict[str, Any]:
        """Return a page of files, newest first."""
        known = [one for one in reversed(self._files.values()) if purpose in (None, one.purpose)]
        return _page([one.as_json() for one in known], after, limit)

    # -- batches -------------------------------------------------------------------------------------------------

    def create(self, body: Any) -> tuple[dict[str, Any] | ErrorReply, bool]:
        """Create a batch. Returns it, and whether the response is lost."""
        fields = body if isinstance(body, dict) else {}
        file = self._files.get(str(fields.get("input_file_id")))
        endpoint = str(fields.get("endpoint"))
        if file is None:
            return invalid(f"No such File object: {fields.get('input_file_id')}", "input_file_id"), False
        if endpoint not in self._dialects:
            return invalid(f"Invalid value for 'endpoint': {endpoint!r}.", "endpoint"), False
        if fields.get("completion_window") != "24h":
            return invalid("Invalid value for 'completion_window': it must be '24h'.", "completion_window"), False
        number = len(self._batches) + 1
        rng = SeededRandom("batch", self._options.seed, number)
        fault = draw_kind(self._options.batch_faults, rng.unit(), OF_BATCH)
        batch = _Batch(
            id=f"batch_{number:06}",
            number=number,
            file=file,
            api=self._dialects[endpoint],
            endpoint=endpoint,
            metadata=fields.get("metadata") or {},
            began=self._clock(),
            created_at=time.time(),
            fault=fault,
        )
        self._check(batch)
        self._batches[batch.id] = batch
        return batch.as_json(), fault == "batch_lost"

    def _check(self, batch: _Batch) -> None:
        names: set[str] = set()
        for number, line in enumerate(_lines(batch.file.path), 1):
            batch.lines = number
            batch.tokens += len(line) // CHARS_A_TOKEN
            problem = _problem_of(line, batch.endpoint, names)
            if problem is not None and len(batch.errors) < 20:
                batch.errors.append({**problem, "line": number, "param": None})
        most = self._options.batch_queue_tokens
        queued = sum(one.tokens for one in self._batches.values() if one.status not in _OVER)
        if most is not None and queued + batch.tokens > most:
            message = f"Enqueued token limit reached for this model. Limit: {most} enqueued tokens."
            batch.errors.append({"code": "token_limit_exceeded", "message": message, "param": None, "line": None})
        if batch.fault == "batch_refused":
            batch.errors.append({"code": "invalid_request", "message": "A fault.", "param": None, "line": None})

    def batches(self, after: str | None, limit: int) -> dict[str, Any]:
        """Return a page of batches, newest first."""
        return _page([self._view(one) for one in reversed(self._batches.values())], after, limit)

    def batch(self, batch_id: str) -> dict[str, Any] | None:
        """Return the current state of a batch; None if it is unknown."""
        batch = self._batches.get(batch_id)
        return None if batch is None else self._view(batch)

    def cancel(self, batch_id: str) -> dict[str, Any] | ErrorReply | None:
        """End a batch early."""
        batch = self._batches.get(batch_id)
        if batch is None:
            return None
        if self._view(batch)["status"] in _OVER:
            return ErrorReply(409, f"Cannot cancel a batch with status '{batch.status}'.", "invalid_request_error")
        if batch.status != "cancelling":
            self._set_status(batch, "cancelling")
            self._answer(batch, self._share(batch), "cancelled")
        return batch.as_json()

    def _share(self, batch: _Batch) -> float:
        """Return the share of a batch's time that has passed."""
        most = 0.5 if batch.fault == "batch_stuck" else 1.0
        return min(most, (self._clock() - batch.began) / max(self._options.batch_s, 1e-9))

    def _view(self, batch: _Batch) -> dict[str, Any]:
        """Return the batch as it is now. Its status advances only when it is viewed."""
        if batch.status == "validating":
            if batch.errors:
                self._set_status(batch, "failed")
            elif self._share(batch) > 0.05:
                self._set_status(batch, "in_progress")
        if batch.status == "in_progress" and self._share(batch) >= 1.0:
            self._set_status(batch, "finalizing")
            expires = batch.fault == "batch_expired"
            self._answer(batch, 0.5 if expires else 1.0, "expired" if expires else "completed")
        elif batch.status == "in_progress":
            batch.completed = int(batch.lines * self._share(batch))
        return batch.as_json()

    @staticmethod
    def _set_status(batch: _Batch, status: str) -> None:
        batch.status = status
        batch.stamps[_STAMPS[status]] = int(time.time())

    def _answer(self, batch: _Batch, share: float, end: str) -> None:
        if not batch.answering:
            batch.answering = True
            task = asyncio.get_running_loop().create_task(self._answer_lines(batch, share, end))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

    async def _answer_lines(self, batch: _Batch, share: float, end: str) -> None:
        """Answer this share of the lines and end the batch."""
        batch.completed = batch.failed = 0
        output, error = self.new_path(), self.new_path()
        rng = SeededRandom("line", self._options.seed, batch.number)
        with output.open("wb") as good, error.open("wb") as bad:
            for number, line in enumerate(_lines(batch.file.path)):
                if number and number % STEP == 0:
                    await asyncio.sleep(0)
                if number < batch.lines * share:
                    self._answer_line(batch, loads(line), rng.unit(), good, bad)
                elif end == "expired":
                    name = loads(line)["custom_id"]
                    message = "This request could not be executed before the completion window expired."
                    bad.write(_result_line(name, None, {"code": "batch_expired", "message": message}))
                    batch.failed += 1
        for path, what in ((output, "output"), (error, "error")):
            if path.stat().st_size or (what == "error" and batch.fault == "batch_empty_error_file"):
                made = self.add_file(path, f"{batch.id}_{what}.jsonl", "batch_output")
                setattr(batch, f"{what}_id", made["id"])
            else:
                path.unlink()
        if batch.fault == "batch_empty_error_id" and batch.error_id is None:
            batch.error_id = ""
        self._set_status(batch, end)

    def _answer_line(self, batch: _Batch, line: dict[str, Any], chance: float, good: IO[bytes], bad: IO[bytes]) -> None:
        fault = (
            "line_500" if batch.fault == "batch_all_failed" else draw_kind(self._options.batch_faults, chance, OF_LINE)
        )
        name = line["custom_id"]
        if fault == "line_missing":
            return
        if fault in ("line_500", "line_zero"):
            body = {"error": {"message": "An error occurred.", "type": "server_error", "param": None, "code": None}}
            response = {"status_code": 500 if fault == "line_500" else 0, "request_id": "", "body": body}
            bad.write(_result_line(name, response, None))
            batch.failed += 1
            return
        reply = self._handler.serve_line(dumps(line["body"]), batch.api)
        body = loads(reply.body)
        written = _result_line(
            name, {"status_code": reply.status, "request_id": f"req_{batch.id}_{name}", "body": body}, None
        )
        if reply.status >= 400:
            bad.write(written)
            batch.failed += 1
            return
        good.write(written * (2 if fault == "line_twice" else 1))
        batch.completed += 1
        batch.model = body.get("model")
        usage = body.get("usage") or {}
        batch.usage[0] += usage.get("prompt_tokens", usage.get("input_tokens", 0))
        batch.usage[1] += usage.get("completion_tokens", usage.get("output_tokens", 0))


def _result_line(name: str, response: Any, error: Any) -> bytes:
    return dumps({"id": f"batch_req_{name}", "custom_id": name, "response": response, "error": error}) + b"\n"


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as lines:
        yield from (line for line in lines if line.strip())


def _problem_of(line: bytes, endpoint: str, names: set[str]) -> dict[str, Any] | None:
    try:
        request = loads(line)
    except JSONDecodeError:
        return {"code": "invalid_json_line", "message": "This line is not parseable as valid JSON."}
    name = request.get("custom_id") if isinstance(request, dict) else None
    if not isinstance(name, str) or not isinstance(request.get("body"), dict) or request.get("method") != "POST":
        return {"code": "missing_required_parameter", "message": "custom_id, method and body are required."}
    if request.get("url") != endpoint:
        return {
            "code": "invalid_url",
            "message": "The URL provided for this request does not match the batch endpoint.",
        }
    if name in names:
        return {"code": "duplicate_custom_id", "message": "The custom_id for this request is a duplicate."}
    names.add(name)
    return None


def _page(objects: list[dict[str, Any]], after: str | None, limit: int) -> dict[str, Any]:
    ids = [one["id"] for one in objects]
    start = ids.index(after) + 1 if after in ids else 0
    page = objects[start : start + limit]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": start + limit < len(objects),
    }


def to_reply(result: dict[str, Any] | ErrorReply) -> Reply:
    """Return the reply for an object or an error."""
    return result.reply() if isinstance(result, ErrorReply) else Reply(200, dumps(result))
