"""Calls, measured as they go by."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.errors import CallError
from pipeline.records import Outcome, Ping, Provider, Request, Response
from pipeline.telemetry.names import (
    DURATION_BOUNDS_S,
    TOKEN_BOUNDS,
    called_attributes,
    error_type,
    request_attributes,
    response_attributes,
    server_attributes,
)
from pipeline.threads import in_daemon
from pipeline.version import __version__

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

log = logging.getLogger("labelpipe")


class CallSpan:
    """One call that was begun."""

    __slots__ = ("request", "span", "started_s")

    def __init__(self, span: Span, started_s: float, request: Request | None = None) -> None:
        self.span = span
        self.started_s = started_s
        self.request = request


class Telemetry:
    """Measures calls. It never raises once it is open: what goes wrong is an event of the log."""

    def __init__(
        self,
        tracers: TracerProvider,
        meters: MeterProvider,
        *,
        model: str,
        server: str | None,
        clock: Callable[[], float] = time.perf_counter,
        on_close: Callable[[bool], None] | None = None,
    ) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        self._tracers, self._meters = tracers, meters
        self._clock = clock
        self._on_close = on_close
        self._name = f"chat {model}"
        self._kind = SpanKind.CLIENT
        self._error_status = Status(StatusCode.ERROR)
        self._common: dict[str, str | int] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": model,
            **server_attributes(server),
        }
        self._tracer = tracers.get_tracer("labelpipe", __version__)
        meter = meters.get_meter("labelpipe", __version__)
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="GenAI operation duration.",
            explicit_bucket_boundaries_advisory=DURATION_BOUNDS_S,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=TOKEN_BOUNDS,
        )
        self._outcomes = meter.create_counter(
            "labelpipe.outcomes", unit="{record}", description="Records that have an outcome."
        )
        # All state that changes: whether the end has begun, and what went wrong already: it is told once.
        self._closed = False
        self._told: set[str] = set()

    def call_started(self, request: Request | None = None) -> CallSpan | None:
        """A call is sent now, with this request. What it gives belongs to `call_ended`."""
        try:
            attributes = {**self._common, **request_attributes(request)}
            span = self._tracer.start_span(self._name, kind=self._kind, attributes=attributes)
        except Exception as error:
            self._broken(error)
            return None
        return CallSpan(span, self._clock(), request)

    def call_ended(
        self, call: CallSpan | None, *, response: Response | None = None, error: BaseException | str | None = None
    ) -> None:
        """The call came to an answer, or to an error: the error itself, or a short word for it."""
        if call is None:
            return
        try:
            self._end(call, response, None if error is None else error_type(error), error)
        except Exception as failed:
            self._broken(failed)

    def written(self, outcomes: Iterable[Outcome]) -> None:
        """Records have their outcome."""
        kinds = Counter((one.status.value, None if one.problem is None else one.problem.code) for one in outcomes)
        try:
            for (status, problem), count in kinds.items():
                attributes = {"labelpipe.status": status}
                self._outcomes.add(count, attributes if problem is None else {**attributes, "error.type": problem})
        except Exception as error:
            self._broken(error)

    def around(self, provider: Provider, *, timeout_s: float | None = None) -> MeasuredProvider:
        """The provider, with every call measured. A call that is cut off after `timeout_s` counts as a timeout."""
        return MeasuredProvider(self, provider, timeout_s)

    async def close(self, timeout_s: float = 5.0) -> None:
        """Send what is left, for at most `timeout_s`; may be called twice."""
        if self._closed:
            return
        self._closed = True
        parts = [asyncio.create_task(in_daemon(partial(self._shut, part))) for part in (self._tracers, self._meters)]
        _, late = await asyncio.wait(parts, timeout=timeout_s)
        for part in late:
            part.cancel()
        if late:
            _complain(f"the collector took longer than {timeout_s:g} s: the last of it is lost")
        if self._on_close is not None:
            self._on_close(bool(late))

    def _end(
        self, call: CallSpan, response: Response | None, kind: str | None, error: BaseException | str | None
    ) -> None:
        took_s = self._clock() - call.started_s
        measured: dict[str, str | int] = self._common
        if kind is not None:
            measured = {**measured, "error.type": kind}
            call.span.set_attribute("error.type", kind)
            if isinstance(error, CallError) and error.status is not None:
                call.span.set_attribute("http.response.status_code", error.status)
            call.span.set_status(self._error_status)
        if response is not None:
            measured = {**measured, "gen_ai.response.model": response.model}
            call.span.set_attributes(response_attributes(response) | called_attributes(call.request, response))
            if response.usage.total:
                self._tokens.record(response.usage.prompt, {**measured, "gen_ai.token.type": "input"})
                self._tokens.record(response.usage.completion, {**measured, "gen_ai.token.type": "output"})
        self._duration.record(took_s, measured)
        call.span.end()

    def _shut(self, part: Any) -> None:
        try:
            if hasattr(part, "shutdown"):  # one that is switched off has nothing to shut
                part.shutdown()
        except Exception as error:
            self._broken(error)

    def _broken(self, error: Exception) -> None:
        if (problem := type(error).__name__) not in self._told:
            self._told.add(problem)
            _complain(problem)


def _complain(problem: str) -> None:
    log.warning("telemetry", extra={"facts": {"problem": problem}})


class MeasuredProvider:
    """A provider whose every call is measured; otherwise the same."""

    def __init__(self, telemetry: Telemetry, provider: Provider, timeout_s: float | None) -> None:
        self._telemetry, self._provider, self._timeout_s = telemetry, provider, timeout_s

    @property
    def simulated(self) -> bool | None:
        """What the provider says of itself."""
        return self._provider.simulated

    @property
    def ping(self) -> Ping | None:
        """The provider's; not measured, for it is about no record."""
        return self._provider.ping

    async def __call__(self, request: Request) -> Response:
        """The provider's answer, or its error."""
        call = self._telemetry.call_started(request)
        started_s = time.monotonic()
        try:
            response = await self._provider(request)
        except asyncio.CancelledError:
            # A timeout above cancels too: only the time tells it from a hedge that lost, or the end of the run.
            in_time = self._timeout_s is None or time.monotonic() - started_s < self._timeout_s * 0.99
            self._telemetry.call_ended(call, error="cancelled" if in_time else "timeout")
            raise
        except BaseException as error:
            self._telemetry.call_ended(call, error=error)
            raise
        self._telemetry.call_ended(call, response=response)
        return response
