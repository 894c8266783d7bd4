"""The config of each server in docs/servers.md: checked, and run against a server that does as that one is known to do.

One process plays all of them behind an HTTP proxy, so that configs call their own hosts. What each of them does is
from public reports; the tests of `providers` name them.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from oddserver import error
from test_docs import DOCS, ROOT, blocks
from typer.testing import CliRunner

from pipeline import Settings, check, preview, run, try_config
from pipeline.cli import app
from pipeline.providers.forms import as_call
from pipeline.providers.wire import proxy_for
from pipeline.records import Answer, ToolCall

Body = dict[str, Any]
Play = Callable[[Body, int], web.Response]
NO_KEYS = {"OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "OPENROUTER_API_KEY", "GROQ_API_KEY", "DEEPSEEK_API_KEY"}
LABEL = {"label": "positive"}


def said(message: Body, finish: str = "stop", **choice: Any) -> web.Response:
    """A completion with this message."""
    choices = [{"index": 0, "message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}]
    usage = {"prompt_tokens": 90, "completion_tokens": 9, "total_tokens": 99}
    return web.json_response({"id": "c", "model": "m", "choices": [choices[0] | choice], "usage": usage})


def called(arguments: Any = None, finish: str = "tool_calls") -> web.Response:
    """A completion that calls the function."""
    function = {"name": "set_label", "arguments": json.dumps(LABEL) if arguments is None else arguments}
    return said({"tool_calls": [{"id": "c1", "type": "function", "function": function}]}, finish)


def words() -> web.Response:
    """A completion in words, with what looks like a call in it: nobody is to read that."""
    return said({"content": '<tool_call>{"name": "set_label", "arguments": {"label": "positive"}}</tool_call>'})


def is_named(body: Body) -> bool:
    return isinstance(body.get("tool_choice"), dict)


def by_schema(body: Body) -> web.Response | None:
    """What a server says that holds to a schema; None where none is sent."""
    schema = body.get("response_format", {}).get("json_schema")
    if schema is None:
        return None
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & body.keys()
    assert all(message["role"] in ("system", "user", "assistant") for message in body["messages"])
    assert schema["schema"]["properties"]["label"]["enum"][0] == "positive"
    return said({"content": json.dumps(LABEL)})


def openai(body: Body, _count: int) -> web.Response:
    if body.get("reasoning_effort") != "none":
        return error(400, "Function tools with reasoning_effort are not supported. Please use /v1/responses instead.")
    return called(finish="stop") if is_named(body) else words()


def azure(body: Body, count: int) -> web.Response:
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"violence": {"filtered": True}}}
    if count == 0:
        return error(400, "The response was filtered.", None, "content_filter", innererror=inner)
    if count == 1:
        answer = error(429, "Requests have exceeded the call rate limit.", None, "429")
        answer.headers["retry-after-ms"] = "20"
        return answer
    return called(finish="stop") if is_named(body) else words()


def openrouter(body: Body, count: int) -> web.Response:
    assert body["provider"]["require_parameters"] is True
    if count == 3:
        return said({"content": ""}, "error", error={"code": 502, "message": "Upstream error"})
    if count == 4:
        return said({"content": "half an ans"}, "error")
    return by_schema(body) or called()


def groq(body: Body, count: int) -> web.Response:
    if count in (3, 4):
        wrote = '<function=set_label{"label": "positive"}</function>'
        return error(400, "Failed to call a function.", "invalid_request_error", "tool_use_failed",
                     failed_generation=wrote)  # fmt: skip
    if count == 5:
        return error(498, "Flex tier capacity exceeded.", "capacity_exceeded", "capacity_exceeded")
    return by_schema(body) or called()


def deepseek(body: Body, _count: int) -> web.Response:
    if body.get("thinking") != {"type": "disabled"} and body.get("tool_choice") not in (None, "auto"):
        return error(400, "Thinking mode does not support this tool_choice", "invalid_request_error")
    if "response_format" in body:
        return error(400, "This response_format type is unavailable now", "invalid_request_error")
    return called()


def vllm(body: Body, _count: int) -> web.Response:
    if body.get("tool_choice") == "required":
        return said({"content": "", "tool_calls": []}, "tool_calls")
    return by_schema(body) or called(finish="stop")


def llamacpp(body: Body, _count: int) -> web.Response:
    return by_schema(body) or (called(LABEL) if body["tool_choice"] == "required" else words())


def lmstudio(body: Body, count: int) -> web.Response:
    if is_named(body):
        return web.json_response({"error": "Invalid tool_choice type: 'object'. Supported string values: none, auto, "
                                           "required"}, status=400)  # fmt: skip
    return words() if count == 3 else by_schema(body) or called()


def ollama(body: Body, _count: int) -> web.Response:
    return by_schema(body) or words()


#: By the host that the config names: who it is, and how the card says that a call is asked for.
PLAYS: dict[str, tuple[str, Play, str | None]] = {
    "api.openai.com": ("OpenAI", openai, None),
    "my-resource.openai.azure.com": ("Azure", azure, None),
    "openrouter.ai": ("OpenRouter", openrouter, "required"),
    "api.groq.com": ("Groq", groq, "required"),
    "api.deepseek.com": ("DeepSeek", deepseek, "required"),
    "localhost:8000": ("vLLM", vllm, "forced"),
    "localhost:8080": ("llama.cpp", llamacpp, "required"),
    "localhost:1234": ("LM Studio", lmstudio, "required"),
    "localhost:11434": ("Ollama", ollama, "schema"),
}


class Net:
    """All the servers, behind one proxy. `bodies` are the calls that came, by host; `play` says who answers."""

    def __init__(self) -> None:
        self.bodies: list[tuple[str, Body]] = []
        self.counts: Counter[str] = Counter()
        self.keys: set[str] = set()
        self.models = self.model = 200
        self.faults: list[Exception] = []
        self.plays = {host: play for host, (_, play, _) in PLAYS.items()}

    async def answer(self, request: web.Request) -> web.Response:
        host = request.headers["Host"].removesuffix(":80")
        self.keys.add(request.headers.get("Authorization", ""))
        if request.method == "GET":
            model = {"id": request.path.rpartition("/")[2], "object": "model"}
            if model["id"] == "models":
                return web.json_response({"object": "list", "data": []}, status=self.models)
            return web.json_response(model, status=self.model)
        body = json.loads(await request.read())
        count, self.counts[host] = self.counts[host], self.counts[host] + 1
        self.bodies.append((host, body))
        try:
            return self.plays[host](body, count)
        except Exception as error:
            self.faults.append(error)  # for the test: here it would only be a 500
            raise


@pytest.fixture(scope="module")
def proxy() -> Iterator[tuple[str, list[Net]]]:
    """The proxy's address, and the net behind it: the last of the list."""
    nets: list[Net] = []
    loop, ready = asyncio.new_event_loop(), threading.Event()
    addresses: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        return await nets[-1].answer(request)

    async def serve() -> web.AppRunner:
        served = web.Application()
        served.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(served)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        addresses.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
        ready.set()
        return runner

    runners: list[web.AppRunner] = []
    thread = threading.Thread(target=lambda: (runners.append(loop.run_until_complete(serve())), loop.run_forever()))
    thread.start()
    assert ready.wait(10)
    yield addresses[0], nets
    asyncio.run_coroutine_threadsafe(runners[0].cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def net(proxy: tuple[str, list[Net]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Net]:
    """A net with nothing in it yet, for a user in a folder of their own."""
    address, nets = proxy
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "data", "data")
    for name in NO_KEYS:
        monkeypatch.setenv(name, "sk-test-0123456789abcdef")
    for name in ("NO_PROXY", "no_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTP_PROXY", address)
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://api.openai.com/v1")
    proxy_for.cache_clear()  # it is looked up once an address
    nets.append(Net())
    yield nets[-1]
    proxy_for.cache_clear()
    assert not nets[-1].faults


CONFIGS = {title: block for block in blocks("toml", [DOCS / "servers.md"])[1:]
           for title in [re.findall(r"^## (.+)$", (DOCS / "servers.md").read_text(encoding="utf-8").partition(
               block.text)[0], re.MULTILINE)[-1]]}  # fmt: skip


def config(title: str, **model: Any) -> Settings:
    """The page's config of a server, written to a file; without TLS, which the proxy does not have."""
    first = blocks("toml", [DOCS / "servers.md"])[0].text
    text = first + CONFIGS[title].text.replace("https://", "http://")
    Path("a.toml").write_text(text, encoding="utf-8")
    sets = [f"model.{name}={value}" for name, value in model.items()]
    return Settings.load("a.toml", ["input.limit=6", "limits.concurrency=1", *sets])


def test_each_server_of_the_page_is_played() -> None:
    assert list(CONFIGS) == [title for title, _, _ in PLAYS.values()]


@pytest.mark.parametrize("host", PLAYS)
def test_the_config_of_a_server_is_checked_and_runs(host: str, net: Net) -> None:
    title, _, form = PLAYS[host]
    settings = config(title)
    found = check(settings)
    assert found.ok, found
    assert sum(net.counts.values()) == (3 if form else 0)
    assert (found.server or {}).get("form") == form
    summary = run(settings)
    filtered = title == "Azure"
    assert (summary.labelled, summary.rejected, summary.failed) == (6 - filtered, filtered, 0)
    assert {where for where, _ in net.bodies} == {host}
    if title == "Groq":  # what the model wrote in place of a call is shown to it
        assert any("<function=set_label" in str(body["messages"][2:]) for _, body in net.bodies)
    if form == "schema":
        assert all("response_format" in body for _, body in net.bodies[3:])


@pytest.mark.parametrize(("title", "form"), [("vLLM", "forced"), ("Ollama", "schema"), ("LM Studio", "required")])
def test_a_run_takes_the_form_that_its_card_names(title: str, form: str, net: Net) -> None:
    """With no word of the user's; and without a card it is as before."""
    settings = config(title, tool_choice="none", timeout_s=20)
    assert run(settings.model_copy(deep=True)).labelled == (6 if form == "required" else 0)
    shutil.rmtree("runs")
    net.bodies.clear()
    found = check(settings)
    assert found.ok
    assert ("worked around" in repr(found)) == (form != "required")
    summary = run(settings)
    assert (summary.labelled, summary.exit_code) == (6, 0)
    shapes = {("schema" if "response_format" in body else "forced" if is_named(body) else "required")
              for _, body in net.bodies[3:]}  # fmt: skip
    assert shapes == {form}
    asked = len(net.bodies)
    Path("runs/reviews/server-card.json").unlink()
    assert run(settings).labelled == 6
    assert len(net.bodies) == asked, "a card that is gone makes no run ask again"


def test_a_card_of_another_model_or_none_that_can_be_read_is_not_believed(net: Net) -> None:
    settings = config("Ollama", tool_choice="none")
    check(settings)
    card = Path("runs/reviews/server-card.json")
    assert json.loads(card.read_text(encoding="utf-8"))["form"] == "schema"
    net.bodies.clear()
    preview(settings, 1)
    assert all("response_format" in body for _, body in net.bodies)
    net.bodies.clear()
    preview(config("Ollama", tool_choice="none", name="other"), 1)
    card.write_text("{", encoding="utf-8")
    preview(settings, 1)
    assert net.bodies
    assert not any("response_format" in body for _, body in net.bodies)


def test_an_answer_by_schema_is_repaired_as_a_call_is(net: Net) -> None:
    """A label outside of the schema, no JSON, and words: each is shown to the model, as text."""
    wrong = iter(['{"label": "fine"}', "It is positive.", "", '```json\n{"label": "positive"}\n```'])

    def play(body: Body, _count: int) -> web.Response:
        content = next(wrong, json.dumps(LABEL))
        return said({"content": content}) if by_schema(body) else words()

    net.plays["localhost:11434"] = play
    summary = run(config("Ollama"))
    assert summary.labelled == 6
    assert summary.calls == 9
    talks = [body["messages"] for _, body in net.bodies if len(body["messages"]) == 4]
    assert all([one["role"] for one in talk] == ["system", "user", "assistant", "user"] for talk in talks)
    prose, fine, silence = sorted(talks, key=lambda talk: str(talk[2]["content"]), reverse=True)
    assert (fine[2]["content"], prose[2]["content"]) == ('{"label": "fine"}', "{}")
    assert "fine" in fine[3]["content"]
    assert "What you sent was: It is positive." in prose[3]["content"]
    asked = "Answer again, with JSON that fits the schema and nothing else."
    told = [talk[3]["content"].partition("What you sent was")[0] for talk in (fine, prose, silence)]
    assert all("Call" not in one and asked in one for one in told), told
    assert silence[2]["content"] == "(I said nothing.)"


@pytest.mark.parametrize("before", ['<think>\nIs it {"label": "negative"}?\n</think>\n\n', "It is good.\n</think>\n"])
def test_thoughts_before_the_json_are_no_part_of_it(before: str, net: Net) -> None:
    """Servers without a parser for a model's thoughts leave them in the content: all records were rejected for it."""

    def play(body: Body, _count: int) -> web.Response:
        return said({"content": before + json.dumps(LABEL)}) if "response_format" in body else words()

    net.plays["localhost:11434"] = play
    check(config("Ollama"))
    assert json.loads(Path("runs/reviews/server-card.json").read_text(encoding="utf-8"))["form"] == "schema"
    summary = run(config("Ollama"))
    assert (summary.labelled, summary.calls) == (6, 6)
    assert summary.readings == {"thoughts before the JSON": 6}


@pytest.mark.parametrize("text", ["<think>\nIt is good", "<think>It is good.</think>\n", '{"a": "</think> b"}'])
def test_an_answer_that_ends_in_its_thoughts_is_read_as_it_stands(text: str) -> None:
    assert as_call(Answer(text=text), "f").calls == (ToolCall("", "f", text),)


def test_a_preview_of_the_prompt_shows_the_form(net: Net) -> None:
    seen = preview(config("Ollama"), 1, prompt=True)
    assert seen.requests is not None
    assert (seen.requests[0].tools, net.counts.total()) == ((), 0)
    assert "response_format" in repr(seen)


def test_a_trial_beside_a_run_asks_as_its_card_says(net: Net) -> None:
    config("Ollama")
    Path("a.toml").write_text(Path("a.toml").read_text(encoding="utf-8").replace('tool_choice = "schema"', ""),
                              encoding="utf-8")  # fmt: skip
    settings = Settings.load("a.toml", ["input.limit=6"])
    check(settings)
    assert run(settings).labelled == 6
    net.bodies.clear()
    try_config(Settings.load("a.toml", ["input.limit=6", "task.system=Other words."]), "runs/reviews", n=4)
    assert len(net.bodies) == 4
    assert all("response_format" in body for _, body in net.bodies)


def test_a_server_that_answers_calls_need_not_tell_about_its_models(net: Net) -> None:
    net.model = 404
    assert "404" not in repr(check(config("Ollama")))
    net.plays["localhost:11434"] = deepseek
    assert "calls may still work" in repr(check(config("Ollama", tool_choice="none")))


def test_a_server_that_does_not_list_its_models_is_not_called(net: Net) -> None:
    net.models = 501
    found = check(config("Ollama"))
    assert (found.ok, found.server) == (True, None)
    assert "localhost:11434: it is unknown how it handles calls: it does not list its models: 501" in repr(found)
    assert not net.counts


def test_examples_are_shown_without_functions(net: Net) -> None:
    settings = config("Ollama")
    examples = [{"text": "Great.", "label": {"label": "positive"}}, {"text": "Bad.", "label": {"label": "negative"}}]
    task = settings.task.model_copy(update={"examples": examples})
    assert run(settings.model_copy(update={"task": task})).labelled == 6
    roles = [message["role"] for message in net.bodies[0][1]["messages"]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]


def test_a_server_that_takes_no_form_is_told_with_the_key_to_set(net: Net) -> None:
    Path("b").mkdir()
    settings = config("DeepSeek", **{"parameters.thinking": "omit"})
    found = check(settings)
    assert not found.ok
    assert found.server is None
    assert 'model.parameters.thinking = { type = "disabled" }' in repr(found)
    assert sum(net.counts.values()) == 3
    assert not Path("runs").exists(), "nothing was begun"
    summary = run(settings)
    assert summary.exit_code == 2
    assert "model.parameters.thinking" in summary.next_step


def test_check_offline_and_check_of_what_has_to_be_fixed_call_nobody(net: Net) -> None:
    config("Ollama")
    done = CliRunner().invoke(app, ["check", "a.toml", "--offline", "--json"])
    assert (done.exit_code, json.loads(done.output)["server"]) == (0, None)
    done = CliRunner().invoke(app, ["check", "a.toml", "--set", 'output.columns=["txt"]'])
    assert done.exit_code == 2
    assert not net.counts
    shown = CliRunner().invoke(app, ["check", "a.toml", "--json"])
    card = json.loads(shown.output)["server"]
    assert (card["form"], card["calls"], card["has"]["required"]["held"]) == ("schema", 3, False)
    assert json.loads(Path("runs/reviews/server-card.json").read_text(encoding="utf-8")) == card


def test_a_card_alone_is_no_run(net: Net) -> None:
    """It is in nobody's way: not in that of the first run, and not in that of --fresh."""
    settings = config("Ollama")
    check(settings)
    assert "the run there" not in repr(check(settings))
    assert run(settings).labelled == 6
    assert "the run there" in repr(check(settings))


def test_a_server_that_is_away_is_no_server_without_forms(net: Net) -> None:
    net.plays["localhost:8080"] = lambda _body, _count: error(429, "Rate limit reached", "requests")
    found = check(config("llama.cpp"))
    assert found.ok
    assert "it is unknown how it handles calls" in repr(found)
    assert not Path("runs/reviews/server-card.json").exists()
    assert net.counts.total() == 1
    net.plays["localhost:8080"] = lambda body, count: error(503, "away") if by_schema(body) else llamacpp(body, count)
    assert 'forces a call by "required"; not by name (in words); not by schema (unclear)' in repr(
        check(config("llama.cpp"))
    )


@pytest.mark.parametrize(
    ("task", "told"),
    [({"max_turns": 3}, "does not go with several tools"), ({"call": "some"}, "it does not go with several tools")],
)
def test_a_schema_is_for_one_call(task: dict[str, Any], told: str, net: Net) -> None:
    settings = config("Ollama")
    found = check(settings.model_copy(update={"task": settings.task.model_copy(update=task)}))
    assert told in repr(found)
    assert not net.counts
