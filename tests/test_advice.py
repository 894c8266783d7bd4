"""What is told to be changed: for each line of the table what servers said, and the key that is named."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.parts.server import advice_context
from pipeline.parts.task import task_of
from pipeline.records import Record
from pipeline.settings import Settings
from pipeline.show.advice import TABLE, advise

LOCAL = "http://127.0.0.1:8000/v1"


def settings_for(base_url: str | None = LOCAL, **model: Any) -> Settings:
    return Settings(
        input={"path": "in.jsonl"},
        task={"prompt": "Label this: {{ text }}", "labels": {"label": ["a", "b"]}},
        model={"name": "m", **({} if base_url is None else {"base_url": base_url}), **model},
    )


#: what is said, the model's settings, and what is advised
SAID: list[tuple[str, dict[str, Any], str]] = [
    # lmstudio-bug-tracker#670
    ("400: Invalid tool_choice type: 'object'. Supported string values: none, auto, required", {},
     'model.tool_choice = "required"'),
    ("400: Invalid tool_choice type: 'object'. Supported string values: none, auto, required",
     {"tool_choice": "forced"}, 'model.tool_choice = "required"'),
    ("404: No endpoints found that support the provided 'tool_choice' value.", {}, 'model.tool_choice = "auto"'),
    ("404: No endpoints found that support the provided 'tool_choice' value.", {"tool_choice": "forced"},
     'model.tool_choice = "required"'),
    ('400: `tool_choice = "required"` is not supported!', {}, 'model.tool_choice = "auto"'),
    # vllm#12834, of versions before "required"
    ('400 BadRequestError: [{"type":"value_error","msg":"`tool_choice` must either be a named tool, or \\"auto\\"."}]',
     {}, 'model.tool_choice = "forced"'),
    ("400: tool_choice: auto is not supported", {"tool_choice": "auto"}, 'model.tool_choice = "required"'),
    # as OpenAI words it for models and tools that Chat Completions does not serve
    ("404: This model is only supported in v1/responses and not in v1/chat/completions.", {},
     'model.api = "responses"'),
    ("400: Function tools with reasoning_effort are not supported. Please use /v1/responses instead.", {},
     'model.api = "responses"'),
    ("404: Not Found (POST http://127.0.0.1:8000/v1/responses)", {"api": "responses"}, 'model.api = "chat"'),
    # DeepSeek-V3#1376
    ("400: Thinking mode does not support this tool_choice", {}, "model.parameters.thinking"),
    ('400: "auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set', {},
     'model.tool_choice = "required"'),
    ("500: tools param requires --jinja flag", {}, "--jinja"),
    ("422 extra_forbidden: Extra inputs are not permitted (parallel_tool_calls)", {},
     'model.parameters.parallel_tool_calls = "omit"'),
    ("400: parallel_tool_calls is not supported", {}, 'model.parameters.parallel_tool_calls = "omit"'),
    # langchain#40769
    ("422: Extra inputs are not permitted (tools.0.function.strict)", {}, "model.strict = false"),
    ("400: 'strict' is not supported by this model", {}, "model.strict = false"),
    ("400 invalid_function_parameters: Invalid schema for function 'f'", {}, "model.strict = false"),
    ("400: Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
     {"parameters": {"max_tokens": 9}}, "model.parameters.max_completion_tokens"),
    ("422: Extra inputs are not permitted (max_completion_tokens)", {}, "model.parameters.max_tokens"),
    ("400: Function tools with reasoning_effort are not supported for m", {}, 'reasoning_effort = "none"'),
    ("400: Unsupported value: 'temperature' does not support 0 with this model.", {"parameters": {"temperature": 0}},
     "model.parameters.temperature out"),
    # openai/codex#15099
    ("400 invalid_request_error: Unsupported service_tier: flex", {"lane": "flex"}, 'model.lane = "live"'),
    ("400 invalid_request_error: Unsupported service_tier: flex", {"parameters": {"service_tier": "flex"}},
     "model.parameters.service_tier out"),
    ("400: registry.ollama.ai/library/gemma:2b does not support tools", {}, "model.name"),
    ("404: No endpoints found that support tool use.", {}, "model.name"),
    ("307: the server redirects calls to https://eu.example.com/v1/chat/completions (POST http://x)", {},
     'model.base_url = "https://eu.example.com/v1"'),
    ("302: the server redirects calls to /login (POST http://x)", {}, "model.base_url"),
    ("the server does not speak TLS: SSLError: WRONG_VERSION_NUMBER", {"base_url": "https://127.0.0.1:8000/v1"},
     'model.base_url = "http://127.0.0.1:8000/v1"'),
    ("the server there speaks TLS but was called without it", {}, 'model.base_url = "https://127.0.0.1:8000/v1"'),
    ("the server's certificate is not trusted: SSLCertVerificationError", {}, "SSL_CERT_FILE"),
    ("the proxy that the environment names (HTTP_PROXY, ...) failed: ClientProxyConnectionError", {}, "NO_PROXY"),
    ("there is no host llm.invalid: ClientConnectorDNSError", {}, "model.base_url"),
    ("there is no host api.opnai.com: ClientConnectorDNSError", {}, "did you mean 'api.openai.com'?"),
    ("the connection failed: ConnectionRefusedError: [Errno 111] Connect call failed", {}, "start the server"),
    ("404 model_not_found: The model `m` does not exist", {}, "model.name"),
    ("404: Not Found (POST http://127.0.0.1:8000/chat/completions)", {"base_url": "http://127.0.0.1:8000"},
     'model.base_url = "http://127.0.0.1:8000/v1"'),
    ("405: Method Not Allowed", {}, "model.base_url"),
    ("404: Not Found (POST http://127.0.0.1:8000/v1/files)", {"lane": "batch"}, 'model.lane = "live"'),
    ("404: Resource not found", {"base_url": "https://x.openai.azure.com/openai"},
     'model.base_url = "https://x.openai.azure.com/openai/v1/"'),
    ("401 invalid_api_key: Incorrect API key provided", {"api_key_env": "MY_KEY"}, "MY_KEY"),
    ("a 200 that is not JSON: '<html>'", {"base_url": "http://127.0.0.1:8000"}, '"http://127.0.0.1:8000/v1"'),
    ("a 200 that is an event stream: 'data:'", {}, "model.base_url"),
    ("calls were answered before. Each time: a completion without a choice: '{\"choices\":[]}'", {}, "model.name"),
    ("no call of 'set_label'; the text was 'It is positive.'", {"tool_choice": "forced"},
     'model.tool_choice = "required"'),
    ("an answer that cannot be decompressed: ContentEncodingError: brotli (br)", {}, "model.base_url"),
    ("no_tool_call", {}, 'set model.tool_choice = "schema"'),
    ("truncated", {}, "model.parameters.max_completion_tokens"),
]  # fmt: skip


@pytest.mark.parametrize(("said", "model", "key"), SAID)
def test_the_key_to_change_is_named(said: str, model: dict[str, Any], key: str) -> None:
    told = advise(advice_context(settings_for(**model)), [said])
    assert told is not None
    assert key in told


def test_each_line_of_the_table_is_used() -> None:
    used = set()
    for said, _, _ in SAID:
        used |= {pattern for pattern, _ in TABLE if re.search(pattern, said, re.IGNORECASE | re.DOTALL)}
    assert {pattern for pattern, _ in TABLE} == used


@pytest.mark.parametrize("said", ["429: slow down", "by SIGINT", "500: it broke", "402: Insufficient credits"])
def test_what_the_config_does_not_mend_has_no_advice(said: str) -> None:
    assert advise(advice_context(settings_for()), [said]) is None


@pytest.mark.parametrize("end", ["/chat/completions", "/chat/completions/", "/completions", "/responses"])
def test_a_pasted_address_is_a_mistake_that_names_the_right_one(end: str) -> None:
    with pytest.raises(ConfigError, match=r"model\.base_url") as caught:
        settings_for(LOCAL + end)
    assert f'set model.base_url = "{LOCAL}"' in str(caught.value)


@pytest.mark.parametrize(
    ("model", "sent"),
    [
        ({"base_url": None}, {"type": "function", "function": {"name": "set_label"}}),
        ({"base_url": "https://api.openai.com/v1"}, {"type": "function", "function": {"name": "set_label"}}),
        (
            {"base_url": "https://x.openai.azure.com/openai/v1/"},
            {"type": "function", "function": {"name": "set_label"}},
        ),
        ({"base_url": "rehearsal"}, {"type": "function", "function": {"name": "set_label"}}),
        ({}, "required"),
        ({"tool_choice": "forced"}, {"type": "function", "function": {"name": "set_label"}}),
        ({"tool_choice": "auto"}, "auto"),
    ],
)
def test_a_call_is_asked_for_in_the_way_that_the_server_is_known_to_hold(model: dict[str, Any], sent: Any) -> None:
    task = task_of(settings_for(**model))
    assert task.render(Record("f", 0, "k", {"text": "t"}, 1, 0)).tool_choice == sent
    # The word in the fingerprint is the same wherever nobody chose one: an older folder goes on.
    assert task.fingerprint["tool_choice"] == model.get("tool_choice", "forced")


def test_a_parameter_that_is_omitted_is_not_sent() -> None:
    parameters = {"parallel_tool_calls": "omit", "temperature": "omit", "seed": 1}
    task = task_of(settings_for(parameters=parameters))
    assert task.render(Record("f", 0, "k", {"text": "t"}, 1, 0)).parameters == {"seed": 1}
