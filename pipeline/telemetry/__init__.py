"""Sends OpenTelemetry data to a collector: a span, a duration, and the tokens of every call. Off by default.

Names follow the semantic conventions for generative AI (github.com/open-telemetry/semantic-conventions-genai), which
are still in development. The standard `OTEL_*` variables decide where and how often data is sent. It contains names,
numbers, and states, but never a key, an error's text, or any part of a record.
"""

from pipeline.telemetry.export import open_telemetry
from pipeline.telemetry.measure import Telemetry
