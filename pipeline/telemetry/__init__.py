"""OpenTelemetry, for those who have a collector: a span, a duration and the tokens of every call. Off by default.

Names follow the semantic conventions for generative AI (github.com/open-telemetry/semantic-conventions-genai), which
are still in development. Where it is sent, and how often, is said by the `OTEL_*` variables that all programs share.
Names, numbers and states are sent: never a key, an error's text, or anything of a record.
"""

from pipeline.telemetry.export import open_telemetry
from pipeline.telemetry.measure import Telemetry
