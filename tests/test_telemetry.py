"""What is measured of calls, in memory and over OTLP to a real socket; and what is never sent."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="needs the extra otel")

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from pipeline.errors import (
    CallTimeoutError,
    ConfigError,
    MissingExtraError,
    RateLimitedError,
    RecordRefusedError,
    UnavailableError,
)
from pipeline.providers import FunctionProvider
from pipeline.records import Answer, Outcome, Problem, Record, Request, Response, Status, ToolCall, Usage
from pipeline.telemetry import Telemetry, open_telemetry
from pipeline.telemetry.names import error_type, server_attributes

SECRET = "sk-very-secret"
TEXT = "the text of a record"
RECORD = Record("a.jsonl", 0, TEXT, {"text": TEXT}, 1, 0)
REQUEST = Request(RECORD, "gpt-6-luna", ({"role": "user", "content": TEXT},), (), None, {}, 10, b"")
RESPONSE = Response(
    Answer((ToolCall("1", "set_label", TEXT),), text=TEXT, finish_reason="tool_calls"),
    Usage(prompt=120, completion=30, cached=100, reasoning=7, cache_write=15),
    "gpt-6-luna-2026-10-01",
)
COMMON = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-6-luna",
    "server.address": "api.openai.com",
    "server.port": 443,
}


class Bench:
    """A telemetry that keeps everything in memory, with a clock of its own."""

    def __init__(self, server: str | None = None) -> None:
        self.now = 100.0
        self._spans, self._metrics = InMemorySpanExporter(), InMemoryMetricReader()
        self._tracers = TracerProvider(shutdown_on_exit=False)
        self._tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._meters = MeterProvider([self._metrics], shutdown_on_exit=False)
        self.telemetry = Telemetry(
            self._tracers, self._meters, model="gpt-6-luna", server=server, clock=lambda: self.now
        )

    def call(self, took_s: float, **ending: Any) -> ReadableSpan:
        span = self.telemetry.call_started()
        self.now += took_s
        self.telemetry.call_ended(span, **ending)
        return self.spans()[-1]

    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """(attributes, point) of a metric."""
        data = self._metrics.get_metrics_data()
        found = [
            metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
        ]
        return [(dict(point.attributes or {}), point) for metric in found for point in metric.data.data_points]


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)


# -- one call ------------------------------------------------------------------------------------------------------


def test_an_answer_is_a_span_by_the_conventions() -> None:
    span = Bench().call(0.5, response=RESPONSE)
    assert (span.name, span.kind, span.status.status_code) == ("chat gpt-6-luna", SpanKind.CLIENT, StatusCode.UNSET)
    assert dict(span.attributes or {}) == {
        **COMMON,
        "gen_ai.response.model": "gpt-6-luna-2026-10-01",
        "gen_ai.response.finish_reasons": ("tool_calls",),
        "gen_ai.usage.input_tokens": 120,
        "gen_ai.usage.output_tokens": 30,
        "gen_ai.usage.cache_read.input_tokens": 100,
        "gen_ai.usage.cache_creation.input_tokens": 15,
        "gen_ai.usage.reasoning.output_tokens": 7,
    }


def test_an_answer_is_a_duration_and_two_counts_of_tokens() -> None:
    bench = Bench()
    for _ in range(3):
        bench.call(0.5, response=RESPONSE)
    measured = {**COMMON, "gen_ai.response.model": "gpt-6-luna-2026-10-01"}
    ((attributes, point),) = bench.points("gen_ai.client.operation.duration")
    assert (attributes, point.count, point.sum) == (measured, 3, 1.5)
    assert point.explicit_bounds == (
        0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92
    )  # fmt: skip
    tokens = {
        one.pop("gen_ai.token.type"): (one, point.sum) for one, point in bench.points("gen_ai.client.token.usage")
    }
    assert tokens == {"input": (measured, 360), "output": (measured, 90)}
    bounds = bench.points("gen_ai.client.token.usage")[0][1].explicit_bounds
    assert (bounds[0], bounds[-1], len(bounds)) == (1, 67_108_864, 14)


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (RateLimitedError(TEXT), "rate_limited", 429),
        (UnavailableError(TEXT, status=503), "unavailable", 503),
        (UnavailableError(TEXT), "unavailable", None),
        (CallTimeoutError(TEXT), "timeout", None),
        (RecordRefusedError(TEXT, status=400), "bad_request", 400),
        (asyncio.CancelledError(TEXT), "cancelled", None),
        (TimeoutError(TEXT), "timeout", None),
        (ZeroDivisionError(TEXT), "ZeroDivisionError", None),
        ("hedged", "hedged", None),
    ],
)
def test_an_error_is_told_by_its_kind_and_never_by_its_text(
    error: BaseException | str, kind: str, status: int | None
) -> None:
    bench = Bench()
    span = bench.call(2, error=error)
    assert error_type(error) == kind
    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes is not None
    assert (span.attributes["error.type"], span.attributes.get("http.response.status_code")) == (kind, status)
    assert TEXT not in span.to_json()
    assert [(one["error.type"], point.sum) for one, point in bench.points("gen_ai.client.operation.duration")] == [
        (kind, 2)
    ]
    assert bench.points("gen_ai.client.token.usage") == []


def test_tokens_that_nobody_counted_are_not_reported() -> None:
    bench = Bench()
    span = bench.call(1, response=Response(Answer(), Usage(), "m"))
    assert bench.points("gen_ai.client.token.usage") == []
    assert "gen_ai.usage.input_tokens" not in (span.attributes or {})


def _asking(*names: str) -> Request:
    """A request with these functions, each of which says a lot."""
    tools = [
        {"type": "function", "function": {"name": name, "description": TEXT, "parameters": {"title": TEXT}}}
        for name in names
    ]
    return replace(REQUEST, tools=tuple(tools))


def test_of_several_functions_their_names_are_told_and_which_were_called() -> None:
    bench = Bench()
    calls = tuple(ToolCall(str(at), name, TEXT) for at, name in enumerate(["answer", SECRET, "answer", "route"]))
    asyncio.run(_asked(bench.telemetry, Response(Answer(calls), Usage(), "m"), request=_asking("route", "answer")))
    (span,) = bench.spans()
    attributes = span.attributes or {}
    told = str(attributes["gen_ai.tool.definitions"])
    assert json.loads(told) == [{"type": "function", "name": "route"}, {"type": "function", "name": "answer"}]
    assert attributes["labelpipe.tools.called"] == ("answer", "_OTHER", "answer", "route")
    assert TEXT not in span.to_json()
    assert SECRET not in span.to_json(), "a name that the model made up may be anything"
    assert "gen_ai.tool.definitions" not in bench.points("gen_ai.client.operation.duration")[0][0]


@pytest.mark.parametrize("names", [(), ("set_label",)])
def test_of_one_function_or_none_there_is_nothing_to_tell(names: tuple[str, ...]) -> None:
    bench = Bench()
    asyncio.run(_asked(bench.telemetry, RESPONSE, request=_asking(*names)))
    assert not {"gen_ai.tool.definitions", "labelpipe.tools.called"} & set(bench.spans()[0].attributes or {})


def test_words_in_place_of_a_call_name_no_function() -> None:
    bench = Bench()
    asyncio.run(_asked(bench.telemetry, Response(Answer(text=TEXT), Usage(), "m"), request=_asking("a", "b")))
    assert "labelpipe.tools.called" not in (bench.spans()[0].attributes or {})


def test_nothing_of_a_record_is_sent() -> None:
    bench = Bench("https://user:sk-very-secret@llm.example.com:8443/v1?key=sk-very-secret")
    bench.call(1, response=RESPONSE)
    asyncio.run(_asked(bench.telemetry, RESPONSE))
    bench.telemetry.written([_outcome(Status.REJECTED, Problem("refused", TEXT))])
    metrics = json.loads(bench._metrics.get_metrics_data().to_json())  # type: ignore[union-attr]
    sent = json.dumps([json.loads(span.to_json()) for span in bench.spans()]) + json.dumps(metrics)
    assert len(bench.spans()) == 2
    assert "llm.example.com" in sent
    assert TEXT not in sent
    assert SECRET not in sent


def _outcome(status: Status, problem: Problem | None = None) -> Outcome:
    return Outcome(RECORD, status, label={"label": TEXT}, problem=problem)


def test_outcomes_are_counted_by_their_kind() -> None:
    bench = Bench()
    bench.telemetry.written([_outcome(Status.LABELLED)] * 3)
    bench.telemetry.written([_outcome(Status.LABELLED), _outcome(Status.FAILED, Problem("timeout", TEXT))])
    counted = [(attributes, point.value) for attributes, point in bench.points("labelpipe.outcomes")]
    assert counted == [
        ({"labelpipe.status": "labelled"}, 4),
        ({"labelpipe.status": "failed", "error.type": "timeout"}, 1),
    ]


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (None, ("openai", "api.openai.com", 443)),
        ("https://api.openai.com/v1", ("openai", "api.openai.com", 443)),
        ("http://127.0.0.1:8000/v1", ("openai", "127.0.0.1", 8000)),
        ("http://localhost/v1", ("openai", "localhost", 80)),
        ("http://[::1]:11434/v1", ("openai", "::1", 11434)),
        ("https://me.OpenAI.azure.com/openai/v1", ("azure.ai.openai", "me.openai.azure.com", 443)),
        ("https://api.x.ai/v1", ("x_ai", "api.x.ai", 443)),
        ("https://notx.ai/v1", ("openai", "notx.ai", 443)),
        ("https://bedrock-runtime.us-east-1.amazonaws.com/openai/v1",
         ("aws.bedrock", "bedrock-runtime.us-east-1.amazonaws.com", 443)),
        ("rehearsal", ("labelpipe.rehearsal", None, None)),
    ],
)  # fmt: skip
def test_who_is_called(server: str | None, expected: tuple[str, str | None, int | None]) -> None:
    found = server_attributes(server)
    assert tuple(found.get(f"{name}") for name in ("gen_ai.provider.name", "server.address", "server.port")) == expected


def test_the_address_that_the_sdk_takes_from_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "https://api.mistral.ai/v1")
    assert server_attributes(None)["gen_ai.provider.name"] == "mistral_ai"


# -- around a provider ---------------------------------------------------------------------------------------------


async def _asked(
    telemetry: Telemetry,
    answer: Response | BaseException,
    timeout_s: float | None = None,
    *,
    request: Request = REQUEST,
) -> Response:
    async def provider(given: Request) -> Response:
        assert given is request
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return await telemetry.around(FunctionProvider(provider), timeout_s=timeout_s)(request)


def test_a_provider_is_the_same_when_it_is_measured() -> None:
    bench, error = Bench(), UnavailableError("down", status=502)

    async def answer(_: Request) -> Response:
        return RESPONSE

    provider = FunctionProvider(answer)
    measured = bench.telemetry.around(provider)
    assert asyncio.run(_asked(bench.telemetry, RESPONSE)) is RESPONSE
    with pytest.raises(UnavailableError) as caught:
        asyncio.run(_asked(bench.telemetry, error))
    assert caught.value is error
    assert [(span.attributes or {}).get("error.type") for span in bench.spans()] == [None, "unavailable"]
    assert measured.simulated is None
    provider.simulated = True
    assert measured.simulated is True


@pytest.mark.parametrize(("cut_after_s", "timeout_s", "kind"), [(0.05, 0.05, "timeout"), (0.01, 3_600, "cancelled")])
def test_a_call_that_is_cut_off(cut_after_s: float, timeout_s: float, kind: str) -> None:
    """A timeout of the engine's cancels the provider, and so do a lost hedge and the end of the run."""
    bench = Bench()

    async def provider(request: Request) -> Response:
        await asyncio.sleep(60)
        raise AssertionError

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(cut_after_s):
                await bench.telemetry.around(FunctionProvider(provider), timeout_s=timeout_s)(REQUEST)

    asyncio.run(main())
    (span,) = bench.spans()
    assert (span.attributes or {})["error.type"] == kind


def test_calls_at_the_same_time_are_traces_of_their_own() -> None:
    bench = Bench()

    async def main() -> None:
        await asyncio.gather(*[_asked(bench.telemetry, RESPONSE) for _ in range(20)])

    asyncio.run(main())
    contexts = [span.context for span in bench.spans()]
    assert len({context.trace_id for context in contexts if context}) == 20
    assert all(span.parent is None for span in bench.spans())


def test_what_breaks_in_it_does_not_touch_the_run(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(SECRET)

    bench.telemetry._duration.record = broken  # type: ignore[method-assign]
    bench.telemetry._outcomes.add = broken  # type: ignore[method-assign]
    for _ in range(3):
        assert asyncio.run(_asked(bench.telemetry, RESPONSE)) is RESPONSE
        bench.telemetry.written([_outcome(Status.LABELLED)])
    bench.telemetry._tracer.start_span = broken  # type: ignore[method-assign, assignment]
    assert asyncio.run(_asked(bench.telemetry, RESPONSE)) is RESPONSE
    assert [record.__dict__["facts"] for record in caplog.records] == [{"problem": "RuntimeError"}]


# -- over OTLP -----------------------------------------------------------------------------------------------------


class Collector:
    """Takes OTLP over HTTP and keeps it."""

    def __init__(self) -> None:
        self.status = 200
        self.hangs = False
        self.go = threading.Event()
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.headers: list[dict[str, str]] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.headers.append(dict(self.headers))
                if collector.hangs:
                    collector.go.wait(30)
                if self.path == "/v1/traces":
                    collector.traces.append(ExportTraceServiceRequest.FromString(body))
                else:
                    assert self.path == "/v1/metrics"
                    collector.metrics.append(ExportMetricsServiceRequest.FromString(body))
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.go.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with closing(Collector()) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"api-key={SECRET}")
        yield collector


@pytest.fixture
def complaints(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    def read() -> list[str]:
        told = [record.__dict__["facts"]["problem"] for record in caplog.records if record.name == "labelpipe"]
        assert SECRET not in repr(told)
        return told

    return read


def opened() -> Telemetry:
    telemetry = open_telemetry(True, model="gpt-6-luna", server=None)
    assert telemetry is not None
    return telemetry


def a_session(calls: int = 3, *, wait_s: float = 10.0) -> float:
    """Open, call, close; the seconds that the closing took."""

    async def main() -> float:
        telemetry = opened()
        for _ in range(calls):
            await _asked(telemetry, RESPONSE)
        telemetry.written([_outcome(Status.LABELLED)] * calls)
        started = time.monotonic()
        await telemetry.close(wait_s)
        await telemetry.close(wait_s)
        return time.monotonic() - started

    return asyncio.run(main())


def test_off_is_none_and_imports_nothing() -> None:
    assert open_telemetry(False, model="m", server=None) is None


def test_everything_is_sent_at_the_close(collector: Collector, complaints: Callable[[], list[str]]) -> None:
    a_session(600)
    spans = [
        span
        for batch in collector.traces
        for resource in batch.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert len(spans) == 600
    assert {span.name for span in spans} == {"chat gpt-6-luna"}
    metrics = {
        metric.name: metric
        for batch in collector.metrics
        for resource in batch.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert set(metrics) == {"gen_ai.client.operation.duration", "gen_ai.client.token.usage", "labelpipe.outcomes"}
    assert metrics["gen_ai.client.operation.duration"].histogram.data_points[0].count == 600
    assert {one["api-key"] for one in collector.headers} == {SECRET}
    assert complaints() == []


def _resource(collector: Collector) -> dict[str, str]:
    attributes = collector.traces[0].resource_spans[0].resource.attributes
    return {one.key: one.value.string_value for one in attributes}


def test_it_names_itself_and_no_machine(collector: Collector) -> None:
    a_session()
    found = _resource(collector)
    assert found["service.name"] == "labelpipe"
    assert {name.split(".")[0] for name in found} == {"service", "telemetry"}


def test_the_variables_name_it_otherwise(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "night")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=lab,service.version=7")
    a_session()
    found = _resource(collector)
    assert (found["service.name"], found["service.version"], found["deployment.environment"]) == ("night", "7", "lab")


@pytest.mark.parametrize(("signal", "left"), [("TRACES", (0, 1)), ("METRICS", (1, 0))])
def test_one_of_the_two_can_be_switched_off(
    collector: Collector, monkeypatch: pytest.MonkeyPatch, signal: str, left: tuple[int, int]
) -> None:
    monkeypatch.setenv(f"OTEL_{signal}_EXPORTER", "none")
    a_session()
    assert (len(collector.traces), len(collector.metrics)) == left


def test_a_collector_that_hangs_does_not_hold_the_end(
    collector: Collector, complaints: Callable[[], list[str]]
) -> None:
    collector.hangs = True
    assert a_session(wait_s=0.2) < 8
    assert complaints() == ["the collector took longer than 0.2 s: the last of it is lost"]


def test_a_collector_that_hangs_does_not_hold_the_process(collector: Collector) -> None:
    collector.hangs = True
    code = (
        "import asyncio; from pipeline.telemetry import open_telemetry\n"
        "async def main():\n"
        "    telemetry = open_telemetry(True, model='m', server=None)\n"
        "    telemetry.call_ended(telemetry.call_started(), error='timeout')\n"
        "    await telemetry.close(0.2)\n"
        "asyncio.run(main())"
    )
    ended = subprocess.run([sys.executable, "-c", code], timeout=9, capture_output=True, check=True)
    assert (ended.stdout, ended.stderr) == (b"", b"telemetry\n")


def test_a_collector_that_refuses_is_told_and_no_more(
    collector: Collector, complaints: Callable[[], list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    collector.status = 401
    a_session()
    (told,) = complaints()
    assert told.startswith("Failed to export")
    assert told.endswith("batch code: 401, reason: …")
    assert capfd.readouterr() == ("", ""), "the progress line is not torn"


def test_no_collector_at_all(monkeypatch: pytest.MonkeyPatch, complaints: Callable[[], list[str]]) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    before = set(threading.enumerate())
    assert a_session(wait_s=0.5) < 8
    assert complaints()
    # The SDK goes on trying in threads of its own, which draw from the random numbers that other tests watch.
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=60)


def test_after_the_close_the_sdks_log_is_its_own_again(collector: Collector) -> None:
    before = list(logging.getLogger("opentelemetry").handlers)
    a_session()
    assert logging.getLogger("opentelemetry").handlers == before


# -- what cannot be opened -----------------------------------------------------------------------------------------


def test_without_the_extra_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    before = list(logging.getLogger("opentelemetry").handlers)
    with pytest.raises(MissingExtraError, match=r"labelpipe\[otel\]") as caught:
        open_telemetry(True, model="m", server=None)
    assert caught.value.extra == "otel"
    assert logging.getLogger("opentelemetry").handlers == before
    assert open_telemetry(False, model="m", server=None) is None


def test_another_protocol_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ConfigError, match=r"OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'; .* http/protobuf"):
        open_telemetry(True, model="m", server=None)


def test_a_variable_that_cannot_be_used_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "0")
    before = threading.active_count()
    with pytest.raises(ConfigError, match=r"OTEL_\* variable cannot be used: interval"):
        open_telemetry(True, model="m", server=None)
    assert threading.active_count() == before
