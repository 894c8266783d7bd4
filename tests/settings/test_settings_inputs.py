"""The keys of [input] beyond files: addresses, queries, and what a program gives instead."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.settings import Settings

Config = Callable[..., Path]
REST: dict[str, Any] = {"task": {"prompt": "x", "labels": {"label": ["a", "b"]}}, "model": {"name": "m"}}


def told(**given: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        Settings(input=given, **REST)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"path": "a", "url_env": "B"}, "input: got input.path and input.url_env; expected one of them"),
        ({"path": "a", "query": "b", "table": "c"}, "input: got input.query and input.table; expected one of them"),
        (
            {"path": "a", "query": "b", "format": "csv"},
            'got input.format = "csv" with a query or table, which has none',
        ),
        ({"url_env": "postgresql://me:pa55word@h/db"}, "expected the name of the environment variable that holds"),
        ({"path": "s3://key:pa55word@bucket/a.csv"}, "input.path: a password does not belong here"),
        ({"path": ["a.csv", "mssql://h/db?Password=pa55word"]}, "name it in input.url_env"),
        ({"path": "https://h/a.csv?sv=2&sig=pa55word"}, 'an address with "sig" in it is a secret'),
        ({"path": "https://h/a.csv?X-Amz-Signature=pa55word"}, "name it in input.url_env"),
        ({"path": "https://h/a.csv?X-Goog-Signature=pa55word&x=1"}, "name it in input.url_env"),
        ({"path": ["https://h/b.csv", "https://h/a.csv?AWSAccessKeyId=pa55word"]}, "name it in input.url_env"),
        ({"path": "https://h/a.csv?%73ig=pa55word"}, "name it in input.url_env"),
        ({"path": "https://h/a.csv?access_token=pa55word"}, "name it in input.url_env"),
        ({"path": "s3://b/a.csv?versionId=1;TOKEN=pa55word"}, "name it in input.url_env"),
    ],
)
def test_mistakes_are_told_without_a_secret(given: dict[str, Any], message: str) -> None:
    assert message in told(**given)
    assert "pa55word" not in told(**given)


@pytest.mark.parametrize(
    "value",
    ["postgres:/me:pa55word@h/db", "me:pa55word@h", " https://me:pa55word@h/x.csv", "https://[pa55word",
     "/pa55word.csv", "https://me:pa55word@h:port/x", "*pa55word*", "-"],
)  # fmt: skip
def test_a_variable_that_holds_no_address_is_named_and_its_value_is_not(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_DB", value)
    with pytest.raises(ConfigError, match=r"^Settings: input\.url_env: MY_DB does not hold an address") as caught:
        Settings(input={"url_env": "MY_DB"}, **REST).hidden_address()
    assert "pa55word" not in str(caught.value)


def test_a_signature_in_an_order_is_not_repeated(config: Config) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load(config(), ["input.path=https://h/a.csv?x=1&X-Amz-Signature=pa55word"])
    assert "--set input.path=https://h/a.csv?x=1&X-Amz-Signature=***: input.path: an address with" in str(caught.value)


def test_an_input_may_be_left_out_by_a_program_that_gives_the_records() -> None:
    settings = Settings(input={"key": "id"}, **REST)
    assert settings.inputs() == []
    with pytest.raises(ConfigError, match=r"^Settings: input\.path: missing; expected a path"):
        settings.need_input()
    assert "input.path: missing" in told(limit=0), "with the other mistakes it is told at once"
    Settings(input={"url_env": "X"}, **REST).need_input()


def test_addresses_stay_as_they_are_and_sqlite_files_are_found(config: Config, folder: Path) -> None:
    config()
    (folder / "config/db.sqlite").touch()
    paths = [
        "https://h/a//b.csv?x=[1]",
        "s3://b/*.csv",
        "sqlite:///db.sqlite?timeout=5",
        "sqlite:////abs/x",
        "sqlite://",
        "https://h/a.csv?sign=1&design=2&keyword=3&sig=",
        "a/b?sig=c.csv",
    ]
    settings = Settings.load("config/a.toml", {"input.path": paths})
    assert settings.inputs() == [*paths[:2], "sqlite:///config/db.sqlite?timeout=5", *paths[3:]]
    (folder / "db.sqlite").touch()
    assert settings.inputs()[2] == paths[2]


def test_a_hidden_address_is_in_the_environment_or_in_dotenv(
    config: Config, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings.load(config(), {"input.path": "none", "input.url_env": "REVIEWS_URL"})
    with pytest.raises(ConfigError, match=r"input\.url_env: REVIEWS_URL is not set"):
        settings.hidden_address()
    (folder / "config/.env").write_text("REVIEWS_URL=https://h/from-dotenv\n")
    assert settings.hidden_address() == "https://h/from-dotenv"
    monkeypatch.setenv("REVIEWS_URL", "https://h/from-environment")
    assert settings.hidden_address() == "https://h/from-environment"
    assert os.environ["REVIEWS_URL"] not in repr(settings)
    assert Settings.load(config()).hidden_address() is None
