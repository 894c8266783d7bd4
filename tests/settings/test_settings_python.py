"""Settings as a Python object: built from dicts, frozen, with paths and the key found where they are."""

from __future__ import annotations

import copy
import glob
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from pipeline.errors import ConfigError
from pipeline.settings import LimitsSettings, Settings, explain

Config = Callable[..., Path]
GIVEN: dict[str, Any] = {
    "input": {"path": "a.jsonl"},
    "task": {"prompt": "{{ text }}", "labels": {"label": ["a", "b"]}},
    "model": {"name": "m"},
}


def test_nested_dicts_are_enough() -> None:
    settings = Settings(**GIVEN)
    assert (settings.input.path, settings.limits.concurrency, settings.output.dir) == ("a.jsonl", 64, "runs/labels")
    assert settings.config_path is None


def test_paths_tuples_and_models_are_taken_too() -> None:
    limits = LimitsSettings(concurrency=3)
    settings = Settings(
        **(GIVEN | {"input": {"path": (Path("a"), "b")}, "limits": limits, "output": {"dir": Path("x/y")}}),
    )
    assert settings.input.path == ["a", "b"]
    assert settings.output.dir == str(Path("x/y"))
    assert settings.limits == limits


def test_the_callers_dicts_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELPIPE_MODEL__PARAMETERS__SEED", "1")
    given = copy.deepcopy(GIVEN) | {"model": {"name": "m", "parameters": {"top_p": 1}}}
    kept = copy.deepcopy(given)
    assert Settings(**given).model.parameters == {"top_p": 1}
    assert given == kept


def test_the_environment_is_read_and_no_config_file(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config()
    monkeypatch.setenv("LABELPIPE_LIMITS__GRACE_S", "7")
    settings = Settings(**GIVEN)
    assert (settings.limits.grace_s, settings.limits.concurrency) == (7, 64)


def test_settings_are_frozen_and_go_through_pickle(config: Config) -> None:
    settings = Settings.load(config())
    with pytest.raises(ValidationError):
        settings.limits = LimitsSettings()
    with pytest.raises(ValidationError):
        settings.limits.concurrency = 3  # type: ignore[misc]
    again = pickle.loads(pickle.dumps(settings))
    assert again == settings
    assert explain(again) == explain(settings)


def test_mistakes_in_python_are_config_errors_too() -> None:
    with pytest.raises(ConfigError, match=r'^Settings: limits\.concurrency: got "8"; expected a whole number'):
        Settings(**GIVEN, limits={"concurrency": "8"})
    with pytest.raises(ConfigError, match=r"^Settings: limit: unknown key; did you mean limits\?$"):
        Settings(**GIVEN, limit={})


def test_a_path_is_looked_for_here_and_then_beside_the_config(config: Config, folder: Path) -> None:
    settings = Settings.load(config())
    beside, here = Path("config/data/reviews.jsonl"), Path("data/reviews.jsonl")
    assert settings.inputs() == ["data/reviews.jsonl"]  # nowhere: as it was written, for the message
    beside.parent.mkdir()
    beside.touch()
    assert settings.inputs() == [str(beside)]
    here.parent.mkdir()
    here.touch()
    assert settings.inputs() == [str(here)]
    assert settings.find(str(folder / "x")) == folder / "x"


def test_globs_are_looked_for_in_the_same_order_and_stdin_is_left(config: Config) -> None:
    settings = Settings.load(config(), input={"path": ["-", "*.csv", "[a]*.tsv"]})
    Path("config/b.csv").touch()
    Path("config/a1.tsv").touch()
    assert settings.inputs() == ["-", str(Path("config/*.csv")), str(Path("config/[a]*.tsv"))]
    Path("a.csv").touch()
    assert settings.inputs()[1] == "*.csv"
    Path("[a]*.tsv").touch()
    assert settings.inputs()[2] == "[a]*.tsv"


def test_a_folder_whose_name_looks_like_a_glob_is_no_glob(config: Config) -> None:
    path = Path("[x]", "a.toml")
    path.parent.mkdir()
    path.write_text(config().read_text())
    (path.parent / "b.csv").touch()
    (pattern,) = Settings.load(path, input={"path": "*.csv"}).inputs()
    assert glob.glob(pattern) == [str(Path("[x]", "b.csv"))]  # noqa: PTH207


def test_the_functions_schema_may_be_in_a_file(config: Config) -> None:
    text = config().read_text().replace("[task.labels]\nlabel = [", "[task.function]\nname = 'f'\n#")
    path = config(text.replace("#", "parameters = 's.json'\n#"))
    settings = Settings.load(path)
    prefix = 'config/a.toml:8: task.function.parameters: "s.json" '
    for content, reason in [
        (None, "cannot be read: No such file or directory"),
        (b"{", "is not JSON: "),
        (b"[]", "holds a list; expected a JSON Schema, which is a table"),
    ]:
        if content:
            Path("config/s.json").write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            schema_of(settings)
        assert str(caught.value).startswith(prefix + reason)
    Path("config/s.json").write_bytes(b'{"type": "object"}')
    assert schema_of(settings) == {"type": "object"}


def test_a_schema_in_the_config_is_given_as_it_is() -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [1, None]}}}
    task = {"prompt": "x", "function": {"name": "f", "parameters": schema}}
    assert schema_of(Settings(**(GIVEN | {"task": task}))) == schema


def test_the_schema_of_one_of_several_tools_may_be_in_a_file_too(config: Config) -> None:
    tools = "[[task.tools]]\nname = 'a'\nlabels.x = ['y']\n[[task.tools]]\nname = 'b'\nparameters = 's.json'\n#"
    settings = Settings.load(config(config().read_text().replace("[task.labels]\nlabel", f"{tools}label")))
    assert settings.task.tools
    with pytest.raises(ConfigError, match=r'config/a\.toml:\d+: task\.tools\.1\.parameters: "s\.json" cannot be read'):
        settings.json_schema(settings.task.tools[1].parameters or "", ("task", "tools", 1, "parameters"))


def schema_of(settings: Settings) -> dict[str, Any]:
    """The schema of task.function."""
    assert settings.task.function
    return settings.json_schema(settings.task.function.parameters, ("task", "function", "parameters"))


def test_the_key_is_found_in_the_environment_then_in_env_files(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load(config())
    found = []
    assert settings.api_key() is None
    Path("config/.env").write_text("OPENAI_API_KEY=beside\n")
    found.append(settings.api_key())
    Path(".env").write_text("OPENAI_API_KEY='here'\nOTHER_KEY=other\n")
    found.append(settings.api_key())
    monkeypatch.setenv("OPENAI_API_KEY", "environment")
    found.append(settings.api_key())
    found.append(Settings.load(config(), ["model.api_key_env=OTHER_KEY"]).api_key())
    assert found == [SecretStr("beside"), SecretStr("here"), SecretStr("environment"), SecretStr("other")]
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert settings.api_key() == SecretStr("here")


def test_importing_settings_loads_nothing_heavy() -> None:
    code = "import sys, pipeline.settings; print(*sys.modules)"
    loaded = set(subprocess.check_output([sys.executable, "-c", code], text=True).split())
    assert not loaded & {"openai", "aiohttp", "jinja2", "jsonschema_rs", "pyarrow", "genai_prices", "tqdm", "typer"}
