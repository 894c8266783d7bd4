"""Tokens of Entra ID, from azure-identity itself and a managed identity's endpoint on loopback."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from provider_servers import completion, options, request, served

from pipeline import Settings, acheck, arun
from pipeline.errors import ConfigError, CredentialsError, MissingExtraError
from pipeline.parts import open_provider
from pipeline.providers import HttpProvider, entra_tokens

# Not imported to see whether it is there: every process that runs tests would.
pytestmark = pytest.mark.skipif(
    not find_spec("azure") or not find_spec("azure.identity"),
    reason="azure-identity is not here: make test installs it",
)


class Identity:
    """A managed identity's endpoint, and an API beside it that shows what it got: one server for both."""

    def __init__(self) -> None:
        self.lives_s = 86_400
        self.status = 200
        self.asked: list[str] = []
        self.seen: list[str] = []

    async def answer(self, asked: web.Request) -> web.Response:
        if asked.path == "/v1/token":
            assert asked.headers["X-IDENTITY-HEADER"] == "identity-secret"
            self.asked.append(asked.query["resource"])
            facts = {
                "access_token": f"eyJ0-token-{len(self.asked)}",
                "expires_on": str(int(time.time()) + self.lives_s),
                "resource": asked.query["resource"],
                "token_type": "Bearer",
            }
            return web.json_response(facts if self.status == 200 else {"message": "no identity"}, status=self.status)
        self.seen.append(asked.headers["Authorization"])
        if asked.method == "GET":
            return web.json_response({"id": "m", "object": "model"})
        call = {"id": "c", "type": "function", "function": {"name": "set_label", "arguments": '{"label": "a"}'}}
        echo = f"you sent {asked.headers['Authorization']}"
        return web.json_response(completion(message={"content": echo, "tool_calls": [call]}))


@pytest.fixture
def identity(monkeypatch: pytest.MonkeyPatch) -> Identity:
    """A managed identity, as an app service at Azure offers it."""
    monkeypatch.setenv("IDENTITY_HEADER", "identity-secret")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdentityCredential")
    for name in (
        "AZURE_CLIENT_ID",
        "AZURE_TENANT_ID",
        "AZURE_CLIENT_SECRET",
        "MSI_ENDPOINT",
        "IDENTITY_SERVER_THUMBPRINT",
    ):
        monkeypatch.delenv(name, raising=False)
    return Identity()


@asynccontextmanager
async def provided(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A provider of the API, whose tokens come from the identity."""
    async with served(identity.answer) as base_url:
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{base_url}/token")
        async with entra_tokens() as token:
            provider = HttpProvider(options(base_url, api_key="none", token=token))
            try:
                yield provider
            finally:
                await provider.close()


def test_a_token_is_asked_for_once_and_again_before_it_ends(
    identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with provided(identity, monkeypatch) as provider:
            answers = [await provider(request()) for _ in range(3)]
            await provider.model("m")
            assert identity.asked == ["https://ai.azure.com"]
            assert set(identity.seen) == {"Bearer eyJ0-token-1"}
            assert {one.answer.text for one in answers} == {"you sent Bearer ***"}

    asyncio.run(work())
    identity.asked.clear()
    identity.seen.clear()
    identity.lives_s = 0  # each is over as it comes

    async def renewed() -> None:
        async with provided(identity, monkeypatch) as provider:
            for _ in range(3):
                assert (await provider(request())).answer.text == "you sent Bearer ***"

    asyncio.run(renewed())
    assert identity.seen == [f"Bearer eyJ0-token-{number}" for number in (1, 2, 3)]


@pytest.mark.parametrize(("status", "error"), [(400, CredentialsError), (403, CredentialsError)])
def test_an_identity_that_is_refused_ends_the_run(
    status: int, error: type[Exception], identity: Identity, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity.status = status

    async def work() -> None:
        async with provided(identity, monkeypatch) as provider:
            with pytest.raises(error, match="no token from Entra ID"):
                await provider(request())
            with pytest.raises(error, match="no token from Entra ID"):
                await provider.model("m")

    asyncio.run(work())
    assert identity.seen == []


def settings(base_url: str | None, folder: Path, **model: Any) -> Settings:
    return Settings.load(
        None,
        input={"path": "-", "key": "id"},
        task={"prompt": "{{ text }}", "labels": {"label": ["a", "b"]}},
        model={"name": "m", "base_url": base_url, "auth": "entra", **model},
        output={"dir": str(folder)},
    )


def test_no_file_of_a_run_holds_a_token(identity: Identity, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-server-123")

    async def work() -> None:
        async with served(identity.answer) as base_url:
            monkeypatch.setenv("IDENTITY_ENDPOINT", f"{base_url}/token")
            used = settings(base_url, tmp_path / "run")
            records = [{"id": str(number), "text": f"text {number}"} for number in range(9)]
            assert (await arun(used, records=records)).labelled == 9
            assert "is available to this key" in repr(await acheck(used))

    asyncio.run(work())
    assert set(identity.seen) == {"Bearer eyJ0-token-1", "Bearer eyJ0-token-2"}
    written = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert len(written) > 5
    assert not [
        path.name for path in written if b"eyJ0" in path.read_bytes() or b"identity-secret" in path.read_bytes()
    ]


def test_without_an_address_there_is_no_call(tmp_path: Path) -> None:
    async def work() -> None:
        async with AsyncExitStack() as stack:
            await open_provider(settings(None, tmp_path), stack)

    with pytest.raises(ConfigError, match=r'model.auth = "entra" needs the address of your Azure resource'):
        asyncio.run(work())


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azure.identity.aio", None)

    async def work() -> None:
        async with entra_tokens():
            pass

    with pytest.raises(MissingExtraError, match=r"labelpipe\[azure\]"):
        asyncio.run(work())
