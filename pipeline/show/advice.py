"""Suggests changes of the config after a server refuses a call, from a table of error texts.

The first line that matches counts. Its advice is a clause ("set model.strict = false"), so that the command to run next
can follow it.
"""

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from pipeline.errors import did_you_mean
from pipeline.records import SERVICE_TIER

#: The problem codes that a change of the config may fix, if most of a run's records have them.
SYSTEMATIC = frozenset({"no_tool_call", "invalid_json", "truncated", "bad_request", "too_large"})
#: The many ways in which servers say that they refuse one thing.
_UNWANTED = (
    r"(not (permitted|supported|allowed|recogni[sz]ed|compatible|implemented)|does ?n[o']t support|unsupported"
    r"|must (either )?be|unrecogni[sz]ed|unknown|unexpected|invalid|extra|only|requires?|no endpoints"
    r"|additional propert|wrong type)"
)


@dataclass(frozen=True, slots=True)
class AdviceContext:
    """The facts of server and config that advice depends on. `parameters` are the names that the user set."""

    base_url: str | None
    api_key_env: str
    tool_choice: str | None
    parameters: Collection[str]
    is_openai: bool
    is_simulated: bool
    names_function: bool
    is_entra: bool = False


#: The advice, or a function that returns it. None means that the config is so already, and the next line counts.
Advice = str | Callable[[AdviceContext, re.Match[str]], str | None]


def _about(what: str) -> str:
    """Return a pattern for a refusal of `what`, in either order."""
    return rf"({what}\b.{{0,160}}{_UNWANTED}|{_UNWANTED}.{{0,160}}{what}\b)"


def _tool_choice(context: AdviceContext, match: re.Match[str]) -> str:
    """Suggest the next milder way to ask for a call, or the one that this server may know."""
    chosen = context.tool_choice
    if not context.names_function and re.search(r"must (either )?be a named", match.string, re.IGNORECASE):
        return 'set model.tool_choice = "forced": "required" is sent now, and this server takes a function\'s name only'
    if chosen == "auto" or re.search(r"object|dict|type|must be a string|is named", match.string, re.IGNORECASE):
        return 'set model.tool_choice = "required"'
    if context.names_function:
        return 'set model.tool_choice = "required", or "auto" where that is refused too'
    return 'set model.tool_choice = "auto": "required" is sent now, and some servers take "forced" only'


def _no_call(context: AdviceContext, _match: re.Match[str]) -> str:
    """Suggest a firmer way to ask, or another model, because the model answers in words."""
    if context.tool_choice == "auto" or context.names_function:
        return 'set model.tool_choice = "required": this server does not seem to force a call'
    if context.tool_choice == "schema":
        return "use another model or server: this one does not enforce a schema either"
    return (
        'set model.tool_choice = "schema", or let labelpipe check find out what this server enforces: '
        '"required" is sent now, and it still answers in words (llama-server needs --jinja, vLLM '
        "--enable-auto-tool-choice)"
    )


def _parameter(context: AdviceContext, match: re.Match[str]) -> str | None:
    """Suggest removing the user's own parameter that is refused."""
    for name in context.parameters:
        if re.search(rf"\b{re.escape(name)}\b", match.string):
            return f'take model.parameters.{name} out, or set it to "omit"'
    return None


def _service_tier(context: AdviceContext, _match: re.Match[str]) -> str | None:
    """Suggest lane "live" because the lane's tier is refused. The user's own tier is a parameter like others."""
    if SERVICE_TIER in context.parameters:
        return None
    return 'set model.lane = "live": this model or server has no flex tier'


def _path(context: AdviceContext, match: re.Match[str]) -> str | None:
    """Suggest a change of the address for a server that does not know the path."""
    url = context.base_url
    if url is None or context.is_simulated:
        return None
    if "/responses)" in match.string:
        return f'set model.api = "chat": {url} has no Responses API, or look at model.base_url and model.name'
    parts = urlsplit(url)
    if parts.hostname and parts.hostname.endswith("azure.com") and "/openai/v1" not in parts.path:
        return f'set model.base_url = "{parts.scheme}://{parts.netloc}/openai/v1/", Azure\'s address for this API'
    if not re.search(r"/v\d", parts.path):
        return f'set model.base_url = "{url.rstrip("/")}/v1": most servers have their API below /v1'
    if re.search(r"/(files|batches)\)", match.string):
        return f'set model.lane = "live": {url} has no Batch API'
    return "look at model.base_url and model.name: one of them is unknown there"


def _scheme(scheme: str) -> Callable[[AdviceContext, re.Match[str]], str | None]:
    def advice(context: AdviceContext, _match: re.Match[str]) -> str | None:
        url = context.base_url
        return None if url is None else f'set model.base_url = "{scheme}://{url.partition("://")[2]}"'

    return advice


def _moved(context: AdviceContext, match: re.Match[str]) -> str:
    """Suggest the address that a redirect names, if it belongs to the same call."""
    target = match["to"].rstrip(".,;)")
    base = target.partition("?")[0].removesuffix("/chat/completions").removesuffix("/responses")
    if base != target and base.startswith("http"):
        return (
            f'set model.base_url = "{base}" if that is your server: labelpipe does not follow redirects to another host'
        )
    return "look at model.base_url: that address is not an API; it redirects calls"


def _key(context: AdviceContext, _match: re.Match[str]) -> str | None:
    if context.is_entra:
        return (
            'give this identity a role on the resource, such as "Cognitive Services OpenAI User" (model.auth = "entra")'
        )
    name = context.api_key_env
    where = "OpenAI" if context.is_openai else "that server"
    return f"look at the key in {name} (model.api_key_env): {where} does not accept it"


#: The most common hosts in configs.
HOSTS = (
    "api.openai.com", "openrouter.ai", "api.groq.com", "api.mistral.ai", "api.deepseek.com", "api.together.xyz",
    "api.fireworks.ai", "generativelanguage.googleapis.com", "api.anthropic.com", "api.x.ai", "api.cerebras.ai",
    "dashscope.aliyuncs.com", "api.perplexity.ai", "router.huggingface.co", "models.github.ai", "localhost",
)  # fmt: skip


def _host(_context: AdviceContext, match: re.Match[str]) -> str:
    """Name the host and suggest a similar one, because a letter is easily lost."""
    suggestion = did_you_mean(match["host"], HOSTS)
    return (
        f"look at the host in model.base_url{suggestion}, and at the network: {match['host']} cannot be resolved here"
    )


def _answer_is_none(context: AdviceContext, _match: re.Match[str]) -> str | None:
    url = context.base_url
    if url is None or context.is_simulated:
        return None
    if not re.search(r"/v\d", urlsplit(url).path):
        return f'set model.base_url = "{url.rstrip("/")}/v1": what answers at {url} is not an API'
    return f"look at model.base_url: what answers at {url} is no API"


#: Patterns of error texts with their advice, from the specific to the general.
TABLE: tuple[tuple[str, Advice], ...] = (
    (r"\b(use|in|with|via|through) \W?/?v1/responses\b", 'set model.api = "responses"'),
    (r"thinking mode", 'set model.parameters.thinking = { type = "disabled" }, or model.tool_choice = "auto"'),
    (
        r"--enable-auto-tool-choice|tool-call-parser",
        'set model.tool_choice = "required", or start vLLM with --enable-auto-tool-choice and --tool-call-parser',
    ),
    (r"--jinja", "start llama-server with --jinja: without it, the server accepts no tools"),
    (_about("parallel_tool_calls"), 'set model.parameters.parallel_tool_calls = "omit"'),
    (_about("tool_choice"), _tool_choice),
    (_about(r"(\bfunction\.strict|\bstrict|structured outputs?)"), "set model.strict = false"),
    (r"invalid schema for function", "fix the schema, or set model.strict = false"),
    (
        r"'max_tokens'.{0,80}max_completion_tokens|use.{0,10}max_completion_tokens",
        "name it model.parameters.max_completion_tokens in place of max_tokens",
    ),
    (_about("max_completion_tokens"), "name it model.parameters.max_tokens in place of max_completion_tokens"),
    (r"reasoning_effort", 'set model.parameters.reasoning_effort = "none"'),
    (
        r"does not support (tools|function)|support tool use|tools? (is|are) not supported",
        "set model.name to a model that can call functions: this one cannot, here",
    ),
    (_about(SERVICE_TIER), _service_tier),
    (_UNWANTED, _parameter),
    (r"redirects calls to (?P<to>\S+)", _moved),
    (r"does not speak TLS", _scheme("http")),
    (r"speaks TLS|HTTPS (port|server)", _scheme("https")),
    (
        r"certificate is not trusted",
        "name the file with your own authority's certificate in the environment: SSL_CERT_FILE=...",
    ),
    (
        r"proxy that the environment names|\b407\b",
        "look at HTTP_PROXY, HTTPS_PROXY and ALL_PROXY in the environment, or exclude the host: NO_PROXY=...",
    ),
    (r"there is no host (?P<host>[^\s:]+)", _host),
    (r"ConnectionRefused|Connect call failed", "start the server, or look at host and port in model.base_url"),
    (r"model_not_found|model .{1,100}(not found|does not exist)|valid model|try pulling", "look at model.name"),
    (r"^40[45]\b", _path),
    (r"^401\b|invalid_api_key|api.?key", _key),
    (r"a completion without a choice", "look at the server and at model.name: its answers are empty"),
    (r"a 200 that is|is no model but", _answer_is_none),
    (
        r"cannot be decompressed",
        "look at model.base_url, and at what stands before it: answers are compressed in a way that was not requested",
    ),
    (r"no call of|no_tool_call|no valid call|neither a call", _no_call),
    (r"cut at the token limit|truncated", "raise model.parameters.max_completion_tokens"),
)


def advise(context: AdviceContext, texts: Iterable[str]) -> str | None:
    """Return what to change, given the error texts; None if no line of the table matches."""
    for text in texts:
        for pattern, advice in TABLE:
            if match := re.search(pattern, text, re.IGNORECASE | re.DOTALL):
                answer = advice if isinstance(advice, str) else advice(context, match)
                if answer is not None:
                    return answer
    return None
