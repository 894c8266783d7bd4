"""Handles the batches of one server: the lines sent, the lines returned, and the calls for files and batches.

The contract is OpenAI's (`openai.types.Batch`, openai 3.5x): an input file with one request per line, and an output
file and an error file with one answer per line. An HTTP error is in `response.body` of its line; `error` of a line is
for ends such as `batch_expired`.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline import codec
from pipeline.errors import CallError, NoCompletionError, UnusableCallError
from pipeline.providers.api import Api
from pipeline.providers.chat import CHAT
from pipeline.providers.errorbody import read_body
from pipeline.providers.faults import foreign_errors, refusal, scrub, translate
from pipeline.providers.forms import as_call
from pipeline.providers.http import HttpProvider, unusable
from pipeline.providers.reading import parsed, usage_of
from pipeline.providers.responses import RESPONSES
from pipeline.providers.streamed_body import streamed_body
from pipeline.records import JSON, Request, Response, Usage

#: The time that a batch may take; the API has no other window.
WINDOW: Literal["24h"] = "24h"
#: A batch in one of these states has ended; its files contain the results.
ENDS = frozenset({"failed", "completed", "expired", "cancelled"})
#: The statuses of a server that cannot list files or batches; a second upload of a file costs nothing.
NO_LIST = frozenset({404, 405, 501})
#: The most batches or files to search for one that may have been created.
MOST_LISTED = 20_000


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """What the server reports about a batch. `errors` are (code, line or None, message); `usage` may be None.

    `done` of `total` requests have ended, `failed` of them in an error. `worked_s` is the time to completion by the
    server's clock; None if it does not report it.
    """

    id: str
    status: str
    output_file_id: str = ""
    error_file_id: str = ""
    errors: tuple[tuple[str, int | None, str], ...] = ()
    total: int = 0
    done: int = 0
    failed: int = 0
    usage: Usage | None = None
    expires_at: float | None = None
    worked_s: float | None = None

    @property
    def is_over(self) -> bool:
        """Whether the batch has ended."""
        return self.status in ENDS


@dataclass(frozen=True, slots=True)
class LineEnd:
    """The result of one line. Without response and error, no answer came, through no fault of the request."""

    name: str
    response: Response | None = None
    error: CallError | None = None


class BatchApi:
    """The files and batches of one server. Every call raises a CallError; none is retried.

    `by_schema` is the function whose schema the lines ask for instead of a call: answers do not name it. `at_simulated`
    is called after the download of a file with simulated answers, before anybody reads it.
    """

    def __init__(
        self, provider: HttpProvider, *, by_schema: str | None = None, at_simulated: Callable[[], None] = lambda: None
    ) -> None:
        self._provider = provider
        self._by_schema = by_schema
        self._at_simulated = at_simulated

    async def is_offered(self) -> bool:
        """Whether the server offers batches for this key. If it cannot be reached now, it may."""
        try:
            await self._provider.has_batches()
        except CallError as error:
            return error.status is None or error.status == 429 or error.status >= 500
        return True

    @property
    def endpoint(self) -> str:
        """The endpoint of each line: `/v1/chat/completions` or `/v1/responses`, whatever the server's address."""
        return _endpoint(self._provider.api)

    def line(self, name: str, request: Request) -> Iterator[bytes]:
        """Yield the line of a request in pieces, with media as base64."""
        head = {"custom_id": name, "method": "POST", "url": self.endpoint}
        yield codec.dumps(head)[:-1] + b',"body":'
        body = self._provider.body(request)
        if request.media_tokens:
            yield from streamed_body(body).chunks()
        else:
            yield codec.dumps(body)
        yield b"}\n"

    def read(self, line: bytes, endpoint: str, model: str) -> LineEnd | None:
        """Read a line of an output or error file; None if it is not a JSON object with a name.

        `endpoint` and `model` are those of its batch: the config may name others by now.
        """
        client = self._provider.client
        try:
            # As for a live answer: one with half an emoji was paid for too, and must not be asked again.
            found, _ = parsed(client.covered(line), client.secrets)
        except NoCompletionError:
            return None
        name = found.get("custom_id") if isinstance(found, dict) else None
        return self._end_of(name, found.get("response"), endpoint, model) if isinstance(name, str) else None

    def _end_of(self, name: str, response: JSON, endpoint: str, model: str) -> LineEnd:
        secrets = self._provider.client.secrets
        if not isinstance(response, Mapping) or not response.get("status_code"):
            return LineEnd(name)
        status, body = response["status_code"], response.get("body")
        try:
            if not isinstance(status, int) or not 200 <= status < 300:
                raise refusal(status if isinstance(status, int) else 500, {}, read_body(body), secrets=secrets)
            reading = _BY_ENDPOINT[endpoint].read(codec.dumps(body), secrets)
        except UnusableCallError as refused:
            return LineEnd(name, unusable(model, refused, 0.0))
        except CallError as refused:
            return LineEnd(name, error=refused)
        request_id = response.get("request_id")
        return LineEnd(
            name,
            Response(
                answer=reading.answer if self._by_schema is None else as_call(reading.answer, self._by_schema),
                usage=reading.usage,
                model=scrub(reading.model or model, secrets)[:200],
                request_id=scrub(request_id, secrets)[:200] if isinstance(request_id, str) and request_id else None,
                service_tier=reading.service_tier,
            ),
        )

    # -- calls ---------------------------------------------------------------------------------------------------

    async def upload(self, path: Path, name: str) -> str:
        """Upload an input file under this name, and return its id."""
        facts = await self._provider.client.upload("/files", path, name, {"purpose": "batch"})
        return _id_of(facts, "file")

    async def find_file(self, name: str) -> str | None:
        """Return the id of the newest input file with this name, or None."""
        try:
            async for facts in self._listed("files", purpose="batch", order="desc"):
                if facts.get("filename") == name and isinstance(facts.get("id"), str):
                    return str(facts["id"])
        except CallError as error:
            if error.status not in NO_LIST:
                raise
        return None

    async def create(self, file_id: str, metadata: Mapping[str, str]) -> BatchFacts:
        """Create a batch from an input file."""
        sdk = self._provider.client.sdk
        made = sdk.batches.create(
            completion_window=WINDOW,
            endpoint=self.endpoint,  # type: ignore[arg-type]  # one of those that it knows
            input_file_id=file_id,
            metadata=dict(metadata),
        )
        return _facts(await self._done("POST /batches", made))

    async def find(self, metadata: Mapping[str, str], file_id: str) -> BatchFacts | None:
        """Return the newest batch with this metadata, or None.

        On a server that does not save metadata, it is a batch of this file that has not failed.
        """
        async for facts in self._listed("batches"):
            known = facts.get("metadata")
            if isinstance(known, Mapping) and known:
                is_meant = all(known.get(name) == value for name, value in metadata.items())
            else:
                is_meant = facts.get("input_file_id") == file_id and facts.get("status") != "failed"
            if is_meant:
                return _facts(facts)
        return None

    async def look(self, batch_id: str) -> BatchFacts:
        """Return the current state of a batch."""
        sdk = self._provider.client.sdk
        return _facts(await self._done(f"GET /batches/{batch_id}", sdk.batches.retrieve(batch_id)))

    async def cancel(self, batch_id: str) -> BatchFacts:
        """Ask the server to end a batch; its finished answers remain."""
        sdk = self._provider.client.sdk
        return _facts(await self._done(f"POST /batches/{batch_id}/cancel", sdk.batches.cancel(batch_id)))

    async def fetch(self, file_id: str, path: Path) -> None:
        """Download a file to a path."""
        simulated = await self._provider.client.download(f"/files/{file_id}/content", path)
        if simulated:
            self._at_simulated()
        if self._provider.simulated is None:
            self._provider.simulated = simulated

    async def forget(self, file_id: str) -> None:
        """Delete a file on the server; ignore a failure."""
        with suppress(CallError):
            await self._done(f"DELETE /files/{file_id}", self._provider.client.sdk.files.delete(file_id))

    async def _listed(self, what: str, **query: str) -> AsyncIterator[dict[str, Any]]:
        """Yield the objects of a list in the server's order, newest first."""
        sdk = self._provider.client.sdk
        listing: Any = getattr(sdk, what).list(limit=100, extra_query=query)
        seen = 0
        try:
            async for one in listing:
                yield _plain(one)
                seen += 1
                if seen >= MOST_LISTED:
                    return
        except foreign_errors() as error:
            raise translate(error, secrets=self._provider.client.secrets, at=f"GET /{what}") from None

    async def _done(self, at: str, act: Any) -> dict[str, Any]:
        try:
            return _plain(await act)
        except foreign_errors() as error:
            raise translate(error, secrets=self._provider.client.secrets, at=at) from None


def _endpoint(api: Api) -> str:
    return f"/v1{api.path}"


_BY_ENDPOINT = {_endpoint(api): api for api in (CHAT, RESPONSES)}


def _plain(made: Any) -> dict[str, Any]:
    """Return an object of the SDK as it came. Raises NoCompletionError for anything else."""
    facts = made.to_dict() if hasattr(made, "to_dict") else made
    if not isinstance(facts, dict):
        raise NoCompletionError(f"a 200 that is neither file nor batch: {str(facts)[:80]!r}", status=200)
    return facts


def _id_of(facts: Mapping[str, Any], what: str) -> str:
    if not isinstance(facts.get("id"), str):
        raise NoCompletionError(f"a 200 that is no {what}: {str(facts)[:80]!r}", status=200)
    return str(facts["id"])


def _facts(found: Mapping[str, Any]) -> BatchFacts:
    counts = found.get("request_counts") or {}
    errors = found.get("errors") or {}
    listed = errors.get("data") if isinstance(errors, Mapping) else None
    return BatchFacts(
        id=_id_of(found, "batch"),
        status=str(found.get("status")),
        output_file_id=found.get("output_file_id") or "",
        error_file_id=found.get("error_file_id") or "",
        errors=tuple(map(_error, listed if isinstance(listed, list) else ())),
        total=counts.get("total") or 0,
        done=(counts.get("completed") or 0) + (counts.get("failed") or 0),
        failed=counts.get("failed") or 0,
        usage=_usage(found.get("usage")),
        expires_at=found.get("expires_at"),
        worked_s=_worked_s(found.get("created_at"), found.get("completed_at")),
    )


def _worked_s(created_at: Any, completed_at: Any) -> float | None:
    is_told = isinstance(created_at, int | float) and isinstance(completed_at, int | float)
    return max(0.0, float(completed_at - created_at)) if is_told else None


def _error(error: Any) -> tuple[str, int | None, str]:
    known = error if isinstance(error, Mapping) else {"message": str(error)}
    line = known.get("line")
    return str(known.get("code") or ""), line if isinstance(line, int) else None, str(known.get("message") or "")


def _usage(found: Any) -> Usage | None:
    usage = usage_of(found, "input_tokens", "output_tokens")
    return usage if usage.total else None
