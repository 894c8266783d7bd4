"""Measures calls."""

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
    """A call in progress."""

    __slots__ = ("request", "span", "started_s")

    def __init__(self, span: Span, started_s: float, request: Request | None = None) -> None:
        self.span = span
        self.started_s = started_s
        self.request = request


class Telemetry:
    """Measures calls. Once it is open, it never raises: failures are logged as events."""

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
        # Mutable state: whether `close` was called, and the failures so far, each of which is logged only once.
        self._closed = False
        self._reported_problems: set[str] = set()

    def call_started(self, request: Request | None = None) -> CallSpan | None:
        """Record that a call with this request is being sent. Pass the result to `call_ended`."""
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
        """Record the call's answer or error. `error` is the exception, or a short word for it."""
        if call is None:
            return
        try:
            self._end(call, response, None if error is None else error_type(error), error)
        except Exception as failed:
            self._broken(failed)

    def written(self, outcomes: Iterable[Outcome]) -> None:
        """Count the outcomes."""
        kinds = Counter((one.status.value, None if one.problem is None else one.problem.code) for one in outcomes)
        try:
            for (status, problem), count in kinds.items():
                attributes = {"labelpipe.status": status}
                self._outcomes.add(count, attributes if problem is None else {**attributes, "error.type": problem})
        except Exception as error:
            self._broken(error)

    def around(self, provider: Provider, *, timeout_s: float | None = None) -> MeasuredProvider:
        """Wrap a provider so that every call is measured. A cancellation after `timeout_s` counts as a timeout."""
        return MeasuredProvider(self, provider, timeout_s)

    async def close(self, timeout_s: float = 5.0) -> None:
        """Send what is left, within `timeout_s`. May be called twice."""
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
            if hasattr(part, "shutdown"):  # a disabled part has none
                part.shutdown()
        except Exception as error:
            self._broken(error)

    def _broken(self, error: Exception) -> None:
        if (problem := type(error).__name__) not in self._reported_problems:
            self._reported_problems.add(problem)
            _complain(problem)


def _complain(problem: str) -> None:
    log.warning("telemetry", extra={"facts": {"problem": problem}})


class MeasuredProvider:
    """A provider whose calls are measured and otherwise unchanged."""

    def __init__(self, telemetry: Telemetry, provider: Provider, timeout_s: float | None) -> None:
        self._telemetry, self._provider, self._timeout_s = telemetry, provider, timeout_s

    @property
    def simulated(self) -> bool | None:
        """The wrapped provider's value."""
        return self._provider.simulated

    @property
    def ping(self) -> Ping | None:
        """The wrapped provider's. Not measured, as it belongs to no record."""
        return self._provider.ping

    async def __call__(self, request: Request) -> Response:
        """Return the provider's answer, or raise its error."""
        call = self._telemetry.call_started(request)
        started_s = time.monotonic()
        try:
            response = await self._provider(request)
        except asyncio.CancelledError:
            # An outer timeout also cancels. Only the time distinguishes it from a lost hedge or the end of the run.
            in_time = self._timeout_s is None or time.monotonic() - started_s < self._timeout_s * 0.99
            self._telemetry.call_ended(call, error="cancelled" if in_time else "timeout")
            raise
        except BaseException as error:
            self._telemetry.call_ended(call, error=error)
            raise
        self._telemetry.call_ended(call, response=response)
        return response
