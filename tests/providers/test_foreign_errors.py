"""The border: every error of the SDK, its HTTP library and its transport becomes one of ours, over real sockets."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
import subprocess
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import openai
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy
from provider_servers import KEY, answers, asked, completion, provider_at, request, served, talked_to
from yarl import URL

from pipeline import codec
from pipeline.errors import (
    CallError,
    CallTimeoutError,
    CredentialsError,
    QuotaError,
    RateLimitedError,
    RecordRefusedError,
    RequestShapeError,
    UnavailableError,
    UnknownRefusalError,
)
from pipeline.providers.faults import MOST_CHARS, foreign_errors, translate


def error_of(body: Any, status: int, **headers: str) -> CallError:
    with pytest.raises(CallError) as caught:
        asyncio.run(asked(answers(body, status, **headers)))
    assert caught.value.status == status
    return caught.value


# -- the table is whole ----------------------------------------------------------------------------------------------


def _all_under(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _all_under(below)


#: What other uses of the libraries raise: cookies, web sockets, webhooks, streams that are read by hand.
OTHER_USES = {
    "CookieConflict",
    "EofStream",
    "InvalidWebhookSignatureError",
    "WSMessageTypeError",
    "WebSocketError",
}
FAMILIES = (openai.OpenAIError, httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, aiohttp.ClientError)


def _foreign() -> list[type[Exception]]:
    """What is under the families, what the modules offer beside them, and what sockets and TLS raise."""
    found = {kind for family in (*FAMILIES, ssl.SSLError) for kind in _all_under(family)}
    for module in (openai, httpx2, aiohttp):
        # Neither `getattr` of each name nor `isinstance`: the SDK's clients and resources would be loaded.
        classes = (one for one in vars(module).values() if issubclass(type(one), type))
        found |= {one for one in classes if issubclass(one, Exception)}
    found |= {ConnectionResetError, BrokenPipeError, socket.gaierror, TimeoutError, asyncio.IncompleteReadError}
    ours = {kind for kind in found if not issubclass(kind, Warning) and kind.__name__ not in OTHER_USES}
    return sorted(ours, key=lambda kind: (kind.__module__, kind.__name__))


def _made(kind: type[Exception]) -> Exception:
    """An error of that class, as its library makes it."""
    http = httpx2.Request("POST", "http://x/v1")
    if issubclass(kind, openai.APIStatusError):
        error = kind.__new__(kind)
        error.__dict__.update(
            vars(openai.APIStatusError("it broke", response=httpx2.Response(418, request=http), body=None))
        )
        return error
    if issubclass(kind, aiohttp.ClientConnectorCertificateError):
        return kind(_connection_key(), ssl.SSLCertVerificationError("it broke"))
    if issubclass(kind, aiohttp.client_exceptions.UnixClientConnectorError):
        return kind("/socket", _connection_key(), OSError(1, "it broke"))
    if issubclass(kind, aiohttp.ClientConnectorError):
        return kind(_connection_key(), OSError(1, "it broke"))
    if issubclass(kind, aiohttp.ClientResponseError):
        return kind(aiohttp.RequestInfo(URL("http://x"), "POST", CIMultiDictProxy(CIMultiDict()), URL("http://x")), ())
    if issubclass(kind, aiohttp.InvalidURL):
        return kind(URL("http://x"))
    error = kind.__new__(kind)
    error.args = ("it broke",)
    return error


def _connection_key() -> Any:
    return aiohttp.client_reqrep.ConnectionKey("x", 443, True, True, None, None, None)


def test_each_foreign_class_is_caught_and_becomes_ours() -> None:
    kinds = _foreign()
    assert len(kinds) > 60
    through = [kind for kind in kinds if not issubclass(kind, foreign_errors())]
    assert not through, "the border lets these through"
    for kind in kinds:
        ours = translate(_made(kind))
        assert isinstance(ours, CallError), kind
        assert str(ours), kind


# -- what the server refuses -----------------------------------------------------------------------------------------

VERDICTS: list[tuple[int, dict[str, Any], type[CallError]]] = [
    (400, {"code": "context_length_exceeded", "param": "messages"}, RecordRefusedError),
    (400, {"code": "invalid_image_format"}, RecordRefusedError),
    (400, {"code": "content_policy_violation"}, RecordRefusedError),
    (400, {"code": "billing_hard_limit_reached"}, QuotaError),
    (400, {"param": "tools[0].function.parameters", "code": "invalid_function_parameters"}, RequestShapeError),
    (400, {"message": "what?"}, RequestShapeError),
    (401, {"code": "invalid_api_key"}, CredentialsError),
    (402, {}, QuotaError),
    (403, {"code": "unsupported_country_region_territory"}, CredentialsError),
    (404, {"code": "model_not_found"}, CredentialsError),
    (408, {}, UnavailableError),
    (409, {}, UnavailableError),
    (413, {}, RecordRefusedError),
    (418, {}, UnknownRefusalError),
    (422, {}, RequestShapeError),
    (429, {"code": "rate_limit_exceeded"}, RateLimitedError),
    (429, {"code": "insufficient_quota"}, QuotaError),
    (429, {"type": "insufficient_quota"}, QuotaError),
    (500, {}, UnavailableError),
    (502, {}, UnavailableError),
    (503, {}, UnavailableError),
    (504, {}, UnavailableError),
    (529, {}, UnavailableError),
]


@pytest.mark.parametrize(("status", "error", "kind"), VERDICTS)
def test_a_status_and_its_body_become_one_of_ours(status: int, error: dict[str, Any], kind: type[CallError]) -> None:
    found = error_of({"error": {"message": "told", **error}}, status, x_request_id="req-9")
    assert type(found) is kind
    assert found.request_id == "req-9"
    assert found.billed is (status in (408, 504)), "a gateway that gave up leaves open whether the model worked"
    assert "told" in str(found) or "what?" in str(found)


@pytest.mark.parametrize(
    ("body", "told"), [("404: Not Found", "404: Not Found"), ("404", "404: 404"), ("4040", "404: 4040")]
)
def test_a_status_in_front_of_the_body_is_told_once(body: str, told: str) -> None:
    assert str(error_of(body, 404)).startswith(f"{told} (")


@pytest.mark.parametrize(
    ("param", "certain"), [("tools[0]", True), ("temperature", True), ("messages[1].content", False), (None, False)]
)
def test_a_400_that_names_a_parameter_of_every_request_is_certain(param: str | None, certain: bool) -> None:
    error = error_of({"error": {"message": "no", "param": param}}, 400)
    assert isinstance(error, RequestShapeError)
    assert error.certain is certain


@pytest.mark.parametrize(("kind", "scope"), [("tokens", "tokens"), ("requests", "requests"), (None, "requests")])
def test_a_rate_limit_says_which(kind: str | None, scope: str) -> None:
    error = error_of({"error": {"message": "slow down", "type": kind, "code": "rate_limit_exceeded"}}, 429)
    assert isinstance(error, RateLimitedError)
    assert error.scope == scope


@pytest.mark.parametrize(
    ("headers", "told_s"),
    [
        ({"retry_after_ms": "120", "retry_after": "60"}, 0.12),
        ({"retry_after": "1.5"}, 1.5),
        ({"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "6m0s"}, 360.0),
        ({}, None),
    ],
)
def test_what_the_server_says_about_waiting(headers: dict[str, str], told_s: float | None) -> None:
    assert error_of({"error": {}}, 429, **headers).retry_after_s == told_s


@cache
def _sdk() -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(api_key=KEY, base_url="http://x/v1")


@given(
    st.sampled_from([400, 401, 404, 422, 429, 500, 503]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["error", "code", "type", "param", "message", "detail"]), inner, max_size=6
            )
        ),
        max_leaves=12,
    ),
)
def test_any_body_of_a_refusal_becomes_one_of_ours(status: int, body: Any) -> None:
    """Servers put lists and objects where codes belong; a TypeError at the border would end the run."""
    response = httpx2.Response(status, content=codec.dumps(body), request=httpx2.Request("POST", "http://x/v1"))
    error = translate(_sdk()._make_status_error_from_response(response))
    assert isinstance(error, CallError)
    assert len(str(error)) <= MOST_CHARS
    assert "\n" not in str(error)


# -- what breaks on the way ------------------------------------------------------------------------------------------


async def _reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def _hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close without a word."""


def _say(text: bytes) -> Any:
    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        await writer.drain()

    return talk


BROKEN = {
    "reset": _reset,
    "hung up": _hang_up,
    "cut body": _say(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"choices"'),
    "cut chunk": _say(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{"x"'),
    "not HTTP": _say(b"SSH-2.0-OpenSSH_9.7\r\n\r\n"),
    "long header": _say(b"HTTP/1.1 200 OK\r\nX-Long: " + 20_000 * b"a" + b"\r\n\r\n"),
    "false gzip": _say(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nzzzz"),
}


@pytest.mark.parametrize("talk", BROKEN.values(), ids=list(BROKEN))
def test_a_broken_connection_is_no_answer(talk: Any) -> None:
    async def main() -> None:
        async with talked_to(talk) as base_url, provider_at(base_url) as provider:
            await provider(request())

    with pytest.raises(UnavailableError, match=r"the connection failed|cannot be decompressed") as caught:
        asyncio.run(main())
    assert "\n" not in str(caught.value)
    assert caught.value.billed, "the request had left"


def _call(base_url: str) -> Any:
    async def main() -> Any:
        async with provider_at(base_url) as provider:
            return await provider(request())

    return asyncio.run(main())


def test_a_refused_connection_is_no_timeout() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with pytest.raises(UnavailableError, match="ConnectionRefusedError") as caught:
        _call(f"http://127.0.0.1:{port}/v1")
    assert not caught.value.billed, "nothing has left: an outage of hours must not use up a budget"


def test_a_name_that_is_nobodys_costs_nothing() -> None:
    with pytest.raises(UnavailableError, match=r"there is no host nobody\.invalid") as caught:
        _call("http://nobody.invalid/v1")
    assert not caught.value.billed


@pytest.mark.parametrize("base_url", ["ftp://127.0.0.1/v1", "nowhere", "/v1"])
def test_an_address_that_is_none_stops_the_run(base_url: str) -> None:
    with pytest.raises(CredentialsError, match=r"model\.base_url is not an address"):
        _call(base_url)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that nobody has signed, with its key in one file."""
    path = tmp_path_factory.mktemp("tls") / "own.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    try:
        subprocess.run([*made, "-keyout", path, "-out", f"{path}.crt", "-days", "2", "-subj", "/CN=localhost"],
                       check=True, capture_output=True)  # fmt: skip
    except FileNotFoundError:
        pytest.skip("openssl is not here to make a certificate")
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


def test_a_certificate_that_is_not_trusted_stops_the_run(certificate: Path) -> None:
    """No waiting fixes it: taken for an outage it was probed for hours."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    async def main() -> None:
        async with served(answers(completion()), ssl_context=context) as base_url, provider_at(base_url) as provider:
            await provider(request())

    with pytest.raises(CredentialsError, match="certificate is not trusted"):
        asyncio.run(main())


def test_tls_to_a_port_without_it_and_the_other_way_round_are_told() -> None:
    async def tls() -> None:
        async with (
            served(answers(completion())) as base_url,
            provider_at(base_url.replace("http:", "https:")) as provider,
        ):
            with pytest.raises(CredentialsError, match="does not speak TLS"):
                await provider(request())

    asyncio.run(tls())

    async def alert(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x15\x03\x03\x00\x02\x02\x46")

    async def plain() -> None:
        async with talked_to(alert) as base_url, provider_at(base_url) as provider:
            with pytest.raises(CredentialsError, match="speaks TLS"):
                await provider(request())

    asyncio.run(plain())


@pytest.mark.parametrize(
    ("error", "kind", "billed"),
    [
        (aiohttp.ServerTimeoutError("silent"), CallTimeoutError, True),
        (aiohttp.SocketTimeoutError("silent"), CallTimeoutError, True),
        (aiohttp.ConnectionTimeoutError("no connection"), UnavailableError, False),
        (aiohttp.InvalidURL(URL("x")), CredentialsError, False),
        (httpx2.ReadTimeout("silent"), CallTimeoutError, True),
        (httpx2.PoolTimeout("full"), UnavailableError, False),
        (httpx2.ConnectError("refused"), UnavailableError, False),
    ],
)
def test_transport_errors_are_judged_by_what_they_are(error: Exception, kind: type[CallError], billed: bool) -> None:
    """Through the SDK's own road they come wrapped: the innermost cause counts."""
    wrapped = openai.APITimeoutError(request=httpx2.Request("POST", "http://x"))
    wrapped.__cause__ = httpx2.ConnectTimeout("")
    wrapped.__cause__.__cause__ = error
    for one in (error, wrapped):
        ours = translate(one)
        assert type(ours) is kind
        assert ours.billed is billed


# -- the key stays out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 401, 500])
@pytest.mark.parametrize("key", [KEY, "0123456789abcdef0123456789abcdef"], ids=["sk", "plain"])
@pytest.mark.parametrize("pad", [0, MOST_CHARS - 36, 60])
def test_the_key_is_in_no_error_even_if_the_server_says_it(status: int, key: str, pad: int) -> None:
    """Where the text is cut in the middle of the key, its first half must not stay either."""
    echo = {"error": {"message": "x" * pad + f" bad key {key} ", "code": "x"}}
    page = ("x" * (pad % 70) + f" {key}").encode()

    async def main(body: Any) -> None:
        async with served(answers(body, status)) as base_url, provider_at(base_url, api_key=key) as provider:
            await provider(request())

    for body in (echo, page):
        with pytest.raises(CallError) as caught:
            asyncio.run(main(body))
        told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
        assert not re.search(re.escape(key[:12]), told)


SECRET = "a7f3c9e1-team-secret"


@pytest.mark.parametrize("status", [200, 400, 401, 500])
def test_the_headers_values_are_in_no_text_and_no_field_that_a_server_gives_back(status: int) -> None:
    """A gateway may show what it got, in an error as well as in an answer."""
    headers = {"api-key": SECRET, "x-team": "Bearer team-of-labels-7", "referer": "https://labels.example"}
    echo = f"got {SECRET} and team-of-labels-7 from https://labels.example"

    async def handler(_: web.Request) -> web.Response:
        body = completion(message={"content": echo}) if status == 200 else {"error": {"message": echo, "code": SECRET}}
        return web.json_response(body, status=status, headers={"x-request-id": f"r-{SECRET}"})

    async def main() -> Any:
        async with served(handler) as base_url, provider_at(base_url, headers=headers) as provider:
            try:
                return await provider(request())
            except CallError as error:
                return error

    told = asyncio.run(main())
    everything = f"{told!r} {told} {told.request_id}"
    assert SECRET not in everything
    if status == 200:
        # The request holds neither name nor address, so that they cannot be what a label quotes.
        assert told.answer.text == "got *** and *** from ***"
    else:
        assert "team-of-labels-7" not in everything
        assert "labels.example" not in everything


def test_what_looks_like_a_key_is_cut_out_too() -> None:
    """Some gateways echo another key than ours, with stars in it."""
    error = error_of({"error": {"message": "Incorrect API key provided: sk-proj-ab***********yz."}}, 401)
    assert str(error).startswith("401: Incorrect API key provided: sk-***. (POST http://127.0.0.1:")
