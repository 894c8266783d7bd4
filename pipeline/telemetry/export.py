"""Sets up the SDK, which sends measurements as the `OTEL_*` variables say."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigError, MissingExtraError
from pipeline.telemetry.measure import Telemetry
from pipeline.version import __version__

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

log = logging.getLogger("labelpipe")

PROTOCOLS = (
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
    "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
)
#: Seconds before the same complaint of an exporter is logged again.
COMPLAINTS_S = 60.0


def open_telemetry(enabled: bool, *, model: str, server: str | None) -> Telemetry | None:
    """Open what measures calls; None if not `enabled`.

    `server` is the API's base URL, None for OpenAI's own, "rehearsal" for the built-in endpoint. Raises
    MissingExtraError, or ConfigError for an unusable `OTEL_*` variable.
    """
    if not enabled:
        return None
    _check_protocol()
    with ExitStack() as undo:
        # First, because the SDK logs faults of the variables while it reads them.
        complaints = _Complaints()
        undo.callback(complaints.close)
        try:
            resource = _resource()
            tracers, meters = _tracers(resource, undo), _meters(resource)
            telemetry = Telemetry(tracers, meters, model=model, server=server, on_close=complaints.end)
        except ImportError as error:
            raise MissingExtraError("telemetry.enabled = true", "otel") from error
        except ValueError as error:
            raise ConfigError(f"telemetry: an OTEL_* variable cannot be used: {error}") from None
        undo.pop_all()
        return telemetry


def _check_protocol() -> None:
    for name in PROTOCOLS:
        value = os.environ.get(name, "").strip()
        if value not in {"", "http/protobuf"}:
            raise ConfigError(f"{name} is {value!r}; labelpipe speaks http/protobuf only (port 4318 as a rule)")


def _is_off(signal: str) -> bool:
    return os.environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() == "none"


def _resource() -> Any:
    """Return who sends: labelpipe, unless the variables differ."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    ours: Mapping[str, str] = {"service.name": "labelpipe", "service.version": __version__}
    given = OTELResourceDetector().detect()
    return Resource.create({name: value for name, value in ours.items() if name not in given.attributes})


def _tracers(resource: Any, undo: ExitStack) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import NoOpTracerProvider

    if _is_off("TRACES"):
        return NoOpTracerProvider()
    # `close` shuts it down with a time limit. At process exit there would be none.
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    undo.callback(tracers.shutdown)
    return tracers


def _meters(resource: Any) -> MeterProvider:
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.metrics import NoOpMeterProvider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    if _is_off("METRICS"):
        return NoOpMeterProvider()
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    return MeterProvider([reader], resource=resource, shutdown_on_exit=False)


class _Complaints(logging.Handler):
    """Turns the SDK's log records into our events. Otherwise they would be printed into the progress line.

    Texts among the arguments are redacted: a header, an address, or an answer may contain a secret.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._logger = logging.getLogger("opentelemetry")
        # Mutable state: when each complaint was last logged, and whether the end has come.
        self._told_at: dict[str, float] = {}
        self._over = False
        self._logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Log the complaint, unless it was logged recently."""
        now, message = time.monotonic(), str(record.msg)
        if self._over or now - self._told_at.get(message, float("-inf")) < COMPLAINTS_S:
            return
        self._told_at[message] = now
        log.warning("telemetry", extra={"facts": {"problem": _covered(message, record.args)}})

    def end(self, late: bool) -> None:
        """Log nothing more. While a thread of the SDK is `late`, keep swallowing its messages."""
        self._over = True
        if not late:
            self.close()

    def close(self) -> None:
        """Remove the handler. May be called twice."""
        self._logger.removeHandler(self)
        super().close()


def _covered(message: str, args: Any) -> str:
    values = args if isinstance(args, tuple) else ()
    try:
        return message % tuple(_plain(value) for value in values) if values else message
    except (TypeError, ValueError):
        return message


def _plain(value: object) -> object:
    if value is None or isinstance(value, int | float) or value in {"spans", "metrics"}:
        return value
    return type(value).__name__ if isinstance(value, BaseException) else "…"
