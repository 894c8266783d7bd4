"""Where values come from: which place wins, how text becomes a value, and that each row can say its place."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.settings import Row, Settings, explain

Config = Callable[..., Path]
#: the places from the weakest to the strongest, with the value that each gives
PLACES = {"file": 16, "dotenv": 2, "environment": 3, "set": 4, "python": 5}


def load_from(places: set[str], config: Config, monkeypatch: pytest.MonkeyPatch) -> Settings:
    path = config() if "file" in places else config(add="", text=config().read_text().replace("concurrency = 16", ""))
    if "dotenv" in places:
        Path(".env").write_text("LABELPIPE_LIMITS__CONCURRENCY=2\n")
    if "environment" in places:
        monkeypatch.setenv("LABELPIPE_LIMITS__CONCURRENCY", "3")
    overrides = ["limits.concurrency=4"] if "set" in places else []
    direct = {"limits": {"concurrency": 5}} if "python" in places else {}
    return Settings.load(path, overrides, **direct)


@pytest.mark.parametrize("places", [set(some) for number in range(6) for some in combinations(PLACES, number)])
def test_the_strongest_place_wins(places: set[str], config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = max((name for name in PLACES if name in places), key=list(PLACES).index, default=None)
    assert load_from(places, config, monkeypatch).limits.concurrency == (PLACES[expected] if expected else 64)


def row(settings: Settings, key: str) -> Row:
    return next(row for row in explain(settings) if row.key == key)


@pytest.mark.parametrize(
    ("place", "origin"),
    [
        ("file", "config/a.toml:13"),
        ("dotenv", ".env"),
        ("environment", "environment LABELPIPE_LIMITS__CONCURRENCY"),
        ("set", "--set"),
        ("python", "Settings"),
    ],
)
def test_a_row_says_where_its_value_came_from(
    place: str, origin: str, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_from({"file", place}, config, monkeypatch)
    assert row(settings, "limits.concurrency") == Row("limits.concurrency", PLACES[place], origin)
    assert str(settings.origins()["limits.concurrency"]) == origin


def test_rows_show_every_key_in_order_and_free_tables_by_entry(config: Config) -> None:
    path = config(add="[model.parameters]\nseed = 1\nstop = ['a', \"b\"]\n")
    settings = Settings.load(path, ["model.parameters.top_p=0.5", "limits.requests_per_day=7"])
    rows = {row.key: (row.text, row.origin) for row in explain(settings)}
    assert list(rows)[:2] == ["input.path", "input.format"]
    assert rows["input.format"] == ('"auto"', "default")
    assert rows["limits.requests_per_minute"] == ("none", "default")
    assert rows["limits.requests_per_day"] == ("7", "--set")
    assert rows["model.parameters.seed"] == ("1", "config/a.toml:15")
    assert rows["model.parameters.stop"] == ('["a", "b"]', "config/a.toml:16")
    assert rows["model.parameters.top_p"] == ("0.5", "--set")
    assert rows["task.labels.label"] == ('["positive", "negative"]', "config/a.toml:7")
    assert rows["task.function"] == ("none", "default")
    assert rows["output.dir"] == ('"runs/a"', "default")
    assert "output.dir" not in settings.origins()


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("input.path=a.jsonl", "input.path", "a.jsonl"),
        ("input.path=-", "input.path", "-"),
        ("input.path=2026", "input.path", "2026"),
        ("input.path=2026-01-01", "input.path", "2026-01-01"),
        ("input.path=[ab]*.csv", "input.path", "[ab]*.csv"),
        ('input.path=["a", "b"]', "input.path", ["a", "b"]),
        ("task.prompt=5", "task.prompt", "5"),
        ("task.prompt=a = b", "task.prompt", "a = b"),
        ("task.prompt=1\nx = 2", "task.prompt", "1\nx = 2"),
        (" limits.timeout = 3", None, None),
        ("model.timeout_s = 3", "model.timeout_s", 3.0),
        ("model.strict=False", "model.strict", False),
        ("task.dedupe=off", "task.dedupe", False),
        ("input.key=none", "input.key", None),
        ('input.key="none"', "input.key", "none"),
        ("input.key='a b'", "input.key", "a b"),
        ("input.quote=none", "input.quote", "none"),
        ("input.escape=none", "input.escape", "none"),
        ("input.records=none", "input.records", "none"),
        ("input.delimiter=none", "input.delimiter", None),
        ("output.columns=none", "output.columns", None),
        ('output.columns=["id"]', "output.columns", ["id"]),
        ("limits.requests_per_minute=none", "limits.requests_per_minute", None),
        ("model.parameters.reasoning_effort=none", "model.parameters", {"reasoning_effort": "none"}),
        ("model.parameters.seed=3", "model.parameters", {"seed": 3}),
        ("model.parameters.user=2026-01-01", "model.parameters", {"user": "2026-01-01"}),
        ('model.parameters={"metadata": {"a": null}}', "model.parameters", {"metadata": {"a": None}}),
        ("model.parameters={a = 1.5}", "model.parameters", {"a": 1.5}),
        ('task.labels."a b"=[1, true]', "task.labels", {"label": ["positive", "negative"], "a b": [1, True]}),
        ("task.labels={x = ['y']}", "task.labels", {"x": ["y"]}),
        ("model.price={input = 1, output = 2}", "model.price.output", 2.0),
        ("rehearsal.faults.429=0.1", "rehearsal.faults", {"429": 0.1}),
        ("model.base_url=rehearsal", "model.base_url", "rehearsal"),
        ("limits={grace_s = 5, max_repairs = 0}", "limits.grace_s", 5.0),
    ],
)
def test_text_is_read_as_what_the_key_takes(override: str, key: str | None, value: Any, config: Config) -> None:
    if key is None:
        with pytest.raises(ConfigError):
            Settings.load(config(), [override])
        return
    found: Any = Settings.load(config(), [override])
    for name in key.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


def test_a_variable_reads_as_an_override_does(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELPIPE_OUTPUT__COLUMNS", '["id"]')
    monkeypatch.setenv("labelpipe_model__parameters__SEED", "3")
    monkeypatch.setenv("LABELPIPE_LIMITS", '{"concurrency": 7, "grace_s": 9}')
    monkeypatch.setenv("LABELPIPE_LIMITS__GRACE_S", "1")
    monkeypatch.setenv("LABELPIPE_SOMEONE__ELSES", "x")
    settings = Settings.load(config())
    assert settings.output.columns == ["id"]
    assert settings.model.parameters == {"seed": 3}
    assert (settings.limits.concurrency, settings.limits.grace_s) == (7, 1)
    assert row(settings, "limits.concurrency").origin == "environment LABELPIPE_LIMITS"


@pytest.mark.parametrize("key", ["quote", "escape", "records"])
@pytest.mark.parametrize("value", [None, "none"])
def test_what_is_unset_and_what_is_none_are_said_again_as_they_were(
    key: str, value: str | None, config: Config
) -> None:
    """None was kept as `none`, which means that there is no such character."""
    for settings in (
        Settings.load(config(), {f"input.{key}": value}),
        Settings.load(config(), input={key: value}),
    ):
        words, hidden = settings.overrides()
        assert hidden == []
        again = Settings.load(config(), [f"input.{key}=x", *words])
        assert getattr(settings.input, key) == getattr(again.input, key) == value


def test_overrides_may_be_values_by_key(config: Config) -> None:
    overrides = {"input.limit": 5, "input.path": "b.csv", "limits.requests_per_minute": "none"}
    settings = Settings.load(config(), overrides)
    assert (settings.input.limit, settings.input.path) == (5, "b.csv")


def test_the_later_override_wins(config: Config) -> None:
    assert Settings.load(config(), ["limits.grace_s=1", "limits.grace_s=2"]).limits.grace_s == 2


def test_keywords_merge_tables_and_replace_free_ones(config: Config) -> None:
    settings = Settings.load(config(), task={"labels": {"kind": ["a", "b"]}}, limits={"max_repairs": 0})
    assert settings.task.labels == {"kind": ["a", "b"]}
    assert settings.task.prompt == "Label this: {{ text }}"
    assert (settings.limits.max_repairs, settings.limits.concurrency) == (0, 16)
    assert [row.key for row in explain(settings) if row.key.startswith("task.labels")] == ["task.labels.kind"]
    assert [key for key in settings.origins() if key.startswith("task.labels")] == ["task.labels", "task.labels.kind"]


def test_a_value_deep_in_a_free_table_has_the_last_origin(config: Config) -> None:
    path = config(add="[model.parameters]\nmetadata = {a = 'x'}\n")
    settings = Settings.load(path, ["model.parameters.metadata.b=y", "model.parameters.other.c=1"])
    assert row(settings, "model.parameters.metadata") == Row("model.parameters.metadata", {"a": "x", "b": "y"}, "--set")
    assert row(settings, "model.parameters.other").origin == "--set"


def test_the_env_file_here_wins_over_the_one_beside_the_config(config: Config) -> None:
    path = config()
    (path.parent / ".env").write_text("LABELPIPE_LIMITS__GRACE_S=1\nLABELPIPE_LIMITS__MAX_REPAIRS=9\nUNRELATED=x\n")
    Path(".env").write_text("LABELPIPE_LIMITS__GRACE_S=2\n")
    settings = Settings.load(path)
    assert (settings.limits.grace_s, settings.limits.max_repairs) == (2, 9)
    assert row(settings, "limits.max_repairs").origin == "config/.env"


def test_one_way_replaces_another_when_the_first_is_unset(config: Config) -> None:
    settings = Settings.load(config(), ["task.labels=none", "task.python=my_labels:Sentiment"])
    assert (settings.task.labels, settings.task.python) == (None, "my_labels:Sentiment")


def test_the_run_folder_is_named_after_the_config(config: Config) -> None:
    assert Settings.load(config(name="night.toml")).output.dir == "runs/night"
    assert Settings.load(config(), ["output.dir=x"]).output.dir == "x"
