"""A secret is in no representation, no dump, no row and no message, wherever the user has put it."""

from __future__ import annotations

import shlex
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import codec
from pipeline.errors import ConfigError
from pipeline.settings import Settings, explain, redacted_command

Config = Callable[..., Path]
SECRET = "sk-proj-Zq81hG"
LOGIN = "https://me:Zq81hG@example.com/v1"
HEADER = f'[model.headers]\nAuthorization = "Bearer {SECRET}"\n'


def test_keys_and_headers_are_in_no_representation(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    settings = Settings.load(config(add=HEADER), [f"model.headers.X-Key={SECRET}"])
    rows = explain(settings)
    texts = [repr(settings), str(settings), str(settings.model_dump()), settings.model_dump_json(), repr(rows)]
    texts += [codec.dumps(settings.model_dump()).decode(), repr(settings.api_key()), repr(settings.origins())]
    assert [text for text in texts if "Zq81hG" in text] == []
    shown = {row.key: (row.value, row.origin) for row in rows}
    assert shown["model.headers.Authorization"] == ("set", "config/a.toml:15")
    assert shown["model.headers.X-Key"] == ("set", "--set")
    assert shown["API key"] == ("set", "environment OPENAI_API_KEY")
    assert settings.model.plain_headers() == {"Authorization": f"Bearer {SECRET}", "X-Key": SECRET}


def test_a_key_that_is_not_there_is_said_to_be_missing(config: Config) -> None:
    assert explain(Settings.load(config()))[-1].value == "not set"


REFUSED = "an API key does not belong in the config; put it into the environment or .env (see model.api_key_env)"


@pytest.mark.parametrize(
    ("added", "overrides", "message"),
    [
        (f"[model.parameters]\napi_key = '{SECRET}'", [], "config/a.toml:15: model.parameters.api_key: a key does not"),
        (f"model.api-key = '{SECRET}'", [], "config/a.toml:14: limits.model: unknown key; "),
        (f"[output]\nOPENAI_API_KEY = '{SECRET}'", [], f"config/a.toml:15: output.OPENAI_API_KEY: {REFUSED}"),
        ("", [f"model.api_key={SECRET}"], f"--set model.api_key=***: model.api_key: {REFUSED}"),
        ("", [f"api_key={SECRET}"], f"--set api_key=***: api_key: {REFUSED}"),
        ("", [f"model.key={SECRET}"], f"--set model.key=sk-***: model.key: {REFUSED}"),
        ("", [f"{SECRET}"], "--set sk-***: expected key=value"),
        ("", [f"model.api_key_env={SECRET}"], "--set model.api_key_env=***: model.api_key_env: expected the name of"),
        ("", [f'model.api_key_env=["{SECRET}"]'], "--set model.api_key_env=***: model.api_key_env: expected the name"),
        ("", [f"limits.grace_s={SECRET}"], '--set limits.grace_s=sk-***: limits.grace_s: got "sk-***"; expected'),
        ("", [f"model.base_url={LOGIN}"], "--set model.base_url=https://***@example.com/v1: model.base_url: got "),
        ("", [f"model.base_url=ftp{LOGIN[5:]}"], "--set model.base_url=ftp://***@example.com/v1: model.base_url: got "),
        (
            f"[output]\ndir = ['{LOGIN}']",
            [],
            'config/a.toml:15: output.dir: got ["https://***@example.com/v1"] (list); expe',
        ),
        ("[model.headers]\nX = ['Zq81hG']", [], "config/a.toml:15: model.headers.X: got list; expected text"),
        ('[model.headers]\nX = "Zq81hG\\nb"', [], "config/a.toml:15: model.headers.X: a header's value has no line"),
        ("[model.headers]\n'a b' = 'Zq81hG'", [], 'config/a.toml:15: model.headers."a b": not a name that an HTTP'),
        (f"[output]\napi_key '{SECRET}'", [], "config/a.toml:15: not TOML at column 9"),
        (f"[output]\napi_key = '{SECRET}", [], "config/a.toml:15: not TOML"),
        ("[output]\npassword = 'Zq81hG", [], "config/a.toml:15: not TOML"),
        ("[model.headers]\nAuthorization = 'Zq81hG", [], "config/a.toml:15: not TOML"),
        (f"[x]\nurl = '{LOGIN}", [], "config/a.toml:15: not TOML"),
    ],
)
def test_a_secret_in_the_wrong_place_is_refused_and_not_repeated(
    added: str, overrides: list[str], message: str, config: Config
) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load(config(add=added), overrides)
    assert str(caught.value).startswith(message)
    trace = "".join(traceback.format_exception(caught.value))
    assert "Zq81hG" not in trace + repr(caught.value) + repr(caught.value.mistakes)


def test_a_key_in_a_variable_for_settings_is_refused(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELPIPE_MODEL__API_KEY", SECRET)
    with pytest.raises(ConfigError) as caught:
        Settings.load(config())
    assert str(caught.value) == f"environment LABELPIPE_MODEL__API_KEY: model.api_key: {REFUSED}"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["a.toml", "--set", "model.headers.X-Key=Zq81hG"], "a.toml --set 'model.headers.X-Key=***'"),
        (["--set=notify.url=http://x/Zq81hG", "a.toml"], "'--set=notify.url=***' a.toml"),
        (["--set", "notify={url='http://x/Zq81hG', on=['end']}"], "--set 'notify=***'"),
        (["--set", 'output={"sql": {"url": "sqlite:///Zq81hG"}}'], "--set 'output=***'"),
        (["--set", "model={headers={X='Zq81hG'"], "--set 'model=***'"),
        (["--set", " model . headers . X = Zq81hG"], "--set 'model.headers.X=***'"),
        (["--set", f"model.parameters.user={SECRET}"], "--set 'model.parameters.user=sk-***'"),
        (["--input", LOGIN], "--input 'https://***@example.com/v1'"),
    ],
)
def test_the_words_of_a_command_are_shown_without_secrets(words: list[str], shown: str) -> None:
    assert redacted_command(words) == f"{shown}  # *** is a secret that is not shown: put its value there"


def test_words_without_secrets_are_shown_as_they_are() -> None:
    words = ["a b.toml", "--set", "limits.budget_usd=0.5", "--set", "model.api_key_env=MY_KEY", "--set", "x={a=1}"]
    words += [
        "--set",
        "task.prompt={{ text }} is?",
        "--set={% if a %}{{ b }}{% endif %}".replace("=", "=task.prompt=", 1),
    ]
    assert shlex.split(redacted_command(words)) == words


def test_a_line_that_was_pasted_without_its_secret_is_refused(config: Config) -> None:
    with pytest.raises(ConfigError, match="stands for a secret that was not shown; give its value"):
        Settings.load(config(), ["model.headers.X-Key=***"])


def test_a_secret_within_a_table_is_not_repeated_either(config: Config) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load(config(), ["notify={url='http://x/Zq81hG', on='never'}"])
    assert "Zq81hG" not in str(caught.value)
