"""Addresses that records name: which may be used, and what their loading gives, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import MediaError
from pipeline.providers import Fetcher, FetchOptions
from pipeline.providers import fetch as module

OPEN = FetchOptions(http=True, private=True)
PRIVATE = [
    "https://127.0.0.1/a",
    "https://127.1/a",
    "https://2130706433/a",
    "https://0x7f000001/a",
    "https://0177.0.0.1/a",
    "https://10.0.0.8/a",
    "https://172.16.1.1/a",
    "https://192.168.0.1/a",
    "https://169.254.169.254/latest/meta-data",
    "https://100.64.0.1/a",
    "https://0.0.0.0/a",
    "https://224.0.0.1/a",
    "https://[::1]/a",
    "https://[::]/a",
    "https://[fe80::1]/a",
    "https://[fd00::1]/a",
    "https://[::ffff:127.0.0.1]/a",
    "https://[::ffff:a9fe:a9fe]/a",
    "https://[64:ff9b::7f00:1]/a",
    "https://[2002:7f00:1::]/a",
    "https://localhost/a",
    "https://LOCALHOST./a",
    "https://api.localhost/a",
    "https://printer.local/a",
    "https://metadata.google.internal/a",
    "https://intranet/a",
    "https://１２７.０.０.１/a",
    "https://①②⑦.0.0.1/a",
    "https://127。0。0。1/a",
    "https://127｡0.0.1/a",
    "https://127.0.0.\u00ad1/a",
    "https://127.0.\u200b0.1/a",
    "https://%31%32%37.0.0.1/a",
    "https://%EF%BC%91%EF%BC%92%EF%BC%97.0.0.1/a",
    "https://⒑0.0.1/a",
    "https://\U0001fbf1\U0001fbf2\U0001fbf7.0.0.1/a",
    "https://ｌocalhost/a",
    "https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/a",
    "https://printer。local/a",
]


@pytest.mark.parametrize("url", PRIVATE)
def test_private_addresses_are_refused_in_every_spelling(url: str) -> None:
    with pytest.raises(MediaError, match="private network"):
        Fetcher().check(url)


#: first and last address of each network that is not the public internet
INNER = (
    "0.0.0.0 0.255.255.255 10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.0 127.255.255.255 169.254.0.0 "
    "169.254.255.255 172.16.0.0 172.31.255.255 192.0.0.0 192.0.0.9 192.0.0.255 192.0.2.0 192.0.2.255 192.88.99.1 "
    "192.168.0.0 192.168.255.255 198.18.0.0 198.19.255.255 198.51.100.7 203.0.113.255 224.0.0.0 239.255.255.255 "
    "240.0.0.0 255.255.255.255 :: ::1 ::ffff:10.0.0.1 ::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b:1::1 100::1 100:0:0:1::1 "
    "2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:10::1 2001:1ff:ffff::1 2001:db8::1 2002:a00:1::1 3fff::1 "
    "3fff:fff::1 4000::1 5f00::1 fc00::1 fdff::1 fe80::1 fe80::1%eth0 febf::1 fec0::1 ff02::1 1.2.3 1.2.3.4.5 name"
)
WORLD = (
    "1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 169.255.0.0 "
    "172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0 192.0.3.0 192.88.98.255 192.167.255.255 192.169.0.0 "
    "198.17.255.255 198.20.0.0 203.0.112.255 203.0.114.0 223.255.255.255 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 "
    "2001:200::1 2001:4860:4860::8888 2002:808:808::1 2606:4700::1111 2a00::1 3ffe::1"
)


def test_the_tables_of_addresses_are_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's own differ between its patch releases, in both directions."""
    for kind in (ipaddress.IPv4Address, ipaddress.IPv6Address):
        for name in ("is_private", "is_global", "is_multicast", "is_reserved"):
            monkeypatch.setattr(kind, name, property(lambda _: pytest.fail("a table of the interpreter was asked")))
    assert [host for host in INNER.split() if module.is_public(host)] == []
    assert [host for host in WORLD.split() if not module.is_public(host)] == []


@given(st.text(max_size=40) | st.text("0123456789abcdef:.[]%@/\\ \0xX-", max_size=40))
@settings(deadline=None)
def test_any_address_is_taken_or_refused_and_nothing_else(host: str) -> None:
    for url in (host, f"https://{host}", f"https://{host}/a", f"https://example.org/{host}"):
        with contextlib.suppress(MediaError):
            Fetcher().check(url)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/a.png?x=1",
        "https://bücher.example/a",
        "https://אב.com/a",
        "https://8.8.8.8/a",
        "https://[2606:4700::1111]/a",
    ],
)
def test_public_addresses_are_taken(url: str) -> None:
    Fetcher().check(url)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://example.org/a", "expected https"),
        ("ftp://example.org/a", "expected https"),
        ("https:///a", "not an address"),
        ("https://example.org:99999/a", "not an address"),
        ("https://exam ple.org/a", "not an address"),
        ("https://[::1/a", "not an address"),
        ("https://me:word@example.org/a", "with a login"),
        ("https://127.0.0.1\\.example.org/a", "contains a character that is not allowed"),
        ("https://127.0.0.1%5C.example.org/a", "contains a character that is not allowed"),
        ("https://127.0.0.1%2F.example.org/a", "contains a character that is not allowed"),
        ("https://ab\ue000c.example.org/a", "not an address"),
        ("https://a%00b.example.org/a", "control character"),
        ("https://a%0ab.example.org/a", "control character"),
        ("https://exam%20ple.org/a", "control character"),
    ],
)
def test_what_is_no_plain_https_address_is_refused(url: str, told: str) -> None:
    with pytest.raises(MediaError, match=told) as caught:
        Fetcher().check(url)
    assert "word" not in str(caught.value)


def test_what_is_told_holds_no_query() -> None:
    with pytest.raises(MediaError) as caught:
        Fetcher().check("https://10.0.0.1/a?signature=secret")
    assert "secret" not in str(caught.value)


Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler, host: str = "127.0.0.1") -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(handler, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, host, 0)
    await site.start()
    try:
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def load(handler: Handler, options: FetchOptions = OPEN, most: int = 1_000, path: str = "/a") -> bytes:
    async def play() -> bytes:
        async with serving(handler) as root:
            fetcher = Fetcher(options)
            try:
                return await fetcher.load(root + path, most)
            finally:
                await fetcher.close()

    return asyncio.run(play())


def answers(status: int = 200, body: bytes = b"picture", **headers: str) -> Handler:
    async def handler(request: web.BaseRequest) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(status=status, body=body, headers=headers)

    return handler


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second and third try come at once."""
    monkeypatch.setattr(module, "AGAIN_AFTER_S", (0.0, 0.0))


def test_the_content_is_given() -> None:
    assert load(answers()) == b"picture"


@pytest.mark.parametrize(
    ("handler", "told"),
    [
        (answers(404), "status 404"),
        (answers(503), "status 503"),
        (answers(body=b"x" * 1_001), "larger than the 1,000 bytes"),
        (answers(**{"Content-Encoding": "gzip"}), "is compressed"),
    ],
)
def test_what_cannot_be_loaded_is_told(handler: Handler, told: str) -> None:
    with pytest.raises(MediaError, match=told):
        load(handler)


def test_the_size_is_held_to_where_the_server_does_not_say_it() -> None:
    async def handler(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while request.transport is not None and not request.transport.is_closing():
            await response.write(b"x" * 10_000)
        return response

    with pytest.raises(MediaError, match="larger than"):
        load(handler)


def test_a_failure_that_passes_is_tried_again() -> None:
    seen: list[str] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        seen.append(request.path)
        return web.Response(status=503) if len(seen) < 3 else web.Response(body=b"picture")

    assert load(handler) == b"picture"
    assert len(seen) == 3


def test_an_address_that_hangs_is_waited_for_once() -> None:
    """The time is for all tries: three of a minute each held the record for three."""
    seen: list[str] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        seen.append(request.path)
        return await asyncio.Future()

    with pytest.raises(MediaError, match=r"cannot be loaded: not there after 2 s"):
        load(handler, FetchOptions(http=True, private=True, timeout_s=2.0))
    assert len(seen) == 1


def test_the_waits_between_tries_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_AFTER_S", (3600.0,))
    with pytest.raises(MediaError, match=r"not there after 0\.2 s"):
        load(answers(503), FetchOptions(http=True, private=True, timeout_s=0.2))


def test_a_port_where_nobody_listens_is_told() -> None:
    async def play() -> None:
        async with serving(answers()) as root:
            pass
        fetcher = Fetcher(OPEN)
        with pytest.raises(MediaError, match="cannot be loaded"):
            await fetcher.load(f"{root}/a", 10)
        await fetcher.close()

    asyncio.run(play())


def test_redirects_are_followed_a_few_times() -> None:
    async def handler(request: web.BaseRequest) -> web.Response:
        turns = int(request.path[1:])
        return (
            web.Response(body=b"end") if not turns else web.Response(status=302, headers={"Location": str(turns - 1)})
        )

    assert load(handler, path="/4") == b"end"
    with pytest.raises(MediaError, match="redirects more than 5 times"):
        load(handler, path="/9")


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "https://user:pw@example.org/", "//10.0.0.1/a", "", "http://[", "http://a%00b/"]
)
def test_a_redirect_is_checked_as_the_address_was(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_public", lambda host: host == "127.0.0.1")
    with pytest.raises(MediaError):
        load(answers(302, b"", Location=place), FetchOptions(http=True))


def test_a_redirect_into_a_private_network_goes_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 plays the public server here, and 127.0.0.2 the private one, by a name that its text does not tell."""
    monkeypatch.setattr(module, "is_public", lambda host: host == "127.0.0.1")
    monkeypatch.setattr(module, "_is_inner_name", lambda host: False)

    async def play() -> None:
        async with serving(answers(), "127.0.0.2") as inner, serving(answers(302, b"", Location=f"{inner}/a")) as outer:
            fetcher = Fetcher(FetchOptions(http=True))
            with pytest.raises(MediaError, match="private network"):
                await fetcher.load(f"{outer}/a", 100)
            await fetcher.close()

    asyncio.run(play())


def test_a_name_that_leads_inward_is_refused_when_it_is_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_is_inner_name", lambda host: False)
    seen: list[str] = []

    async def handler(request: web.BaseRequest) -> web.Response:
        seen.append(request.path)
        return web.Response()

    async def play() -> None:
        async with serving(handler) as root:
            fetcher = Fetcher(FetchOptions(http=True))
            with pytest.raises(MediaError, match="private network"):
                await fetcher.load(root.replace("127.0.0.1", "localhost") + "/a", 100)
            await fetcher.close()

    asyncio.run(play())
    assert seen == []
