"""Describes calls in the terms of the conventions."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pipeline import codec
from pipeline.errors import LabelpipeError
from pipeline.records import JSON, Request, Response

OPENAI = "https://api.openai.com"
REHEARSAL = "rehearsal"
#: The boundaries that the conventions prescribe.
DURATION_BOUNDS_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TOKEN_BOUNDS = tuple(4**power for power in range(14))
#: The conventions' name -> the endings of its host names. Any other host counts as OpenAI-compatible.
_HOSTS = {
    "azure.ai.openai": "openai.azure.com",
    "azure.ai.inference": "services.ai.azure.com inference.ai.azure.com",
    "aws.bedrock": "amazonaws.com",
    "gcp.vertex_ai": "aiplatform.googleapis.com",
    "gcp.gemini": "generativelanguage.googleapis.com",
    "cohere": "cohere.com cohere.ai",
    "moonshot_ai": "moonshot.ai moonshot.cn",
    "mistral_ai": "mistral.ai",
    "x_ai": "x.ai",
    **{name: f"{name}.com" for name in ("anthropic", "deepseek", "groq")},
    "perplexity": "perplexity.ai",
}
PROVIDERS = {end: name for name, ends in _HOSTS.items() for end in ends.split()}


def error_type(error: BaseException | str) -> str:
    """Return a short word for an error, from a small set: our code, or else its class name."""
    if isinstance(error, str):
        return error
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    if isinstance(error, TimeoutError):
        return "timeout"
    return error.code if isinstance(error, LabelpipeError) else type(error).__name__


def server_attributes(server: str | None) -> dict[str, str | int]:
    """Return the called server: `gen_ai.provider.name`, `server.address`, `server.port`."""
    if server == REHEARSAL:
        return {"gen_ai.provider.name": "labelpipe.rehearsal"}
    # The SDK reads this variable if it is given no address.
    parts = urlsplit(server or os.environ.get("OPENAI_BASE_URL") or OPENAI)
    host = (parts.hostname or "").lower()
    ends = (name for end, name in PROVIDERS.items() if host == end or host.endswith(f".{end}"))
    port = parts.port or (80 if parts.scheme == "http" else 443)
    where: dict[str, str | int] = {"server.address": host, "server.port": port} if host else {}
    return {"gen_ai.provider.name": next(ends, "openai"), **where}


def request_attributes(request: Request | None) -> dict[str, str]:
    """Return a request's span attributes: the names of its functions, if there are several.

    They have the conventions' form of a definition, without parameters and description.
    """
    tools = () if request is None else request.tools
    if len(tools) < 2:
        return {}
    named = [{"type": "function", "name": name} for name in _names(tools)]
    return {"gen_ai.tool.definitions": codec.dumps(named).decode()}


def called_attributes(request: Request | None, response: Response) -> dict[str, list[str]]:
    """Return which of several functions were called, in the answer's order. An unknown name becomes "_OTHER"."""
    tools = () if request is None else request.tools
    if len(tools) < 2 or not response.answer.calls:
        return {}
    known = frozenset(_names(tools))
    # Our own name: the conventions name a call only in the span of its execution.
    return {"labelpipe.tools.called": [call.name if call.name in known else "_OTHER" for call in response.answer.calls]}


def _names(tools: Sequence[Mapping[str, JSON]]) -> list[str]:
    return [str(tool["function"]["name"]) for tool in tools]


def response_attributes(response: Response) -> dict[str, Any]:
    """Return an answer's span attributes."""
    usage = response.usage
    found: dict[str, Any] = {"gen_ai.response.model": response.model}
    if usage.total:
        found |= {"gen_ai.usage.input_tokens": usage.prompt, "gen_ai.usage.output_tokens": usage.completion}
    if usage.cached:
        found["gen_ai.usage.cache_read.input_tokens"] = usage.cached
    if usage.cache_write:
        found["gen_ai.usage.cache_creation.input_tokens"] = usage.cache_write
    if usage.reasoning:
        found["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning
    if response.answer.finish_reason:
        found["gen_ai.response.finish_reasons"] = [response.answer.finish_reason[:40]]
    return found
