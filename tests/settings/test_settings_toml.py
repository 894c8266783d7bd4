"""What `config show` prints is a config: read again it gives the same settings, but for the secrets."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline import codec
from pipeline.cli import app
from pipeline.settings import Settings, to_toml

Config = Callable[..., Path]
EXAMPLES = sorted((Path(__file__).parents[2] / "config").glob("*.toml"))
SECRET = "Zq81hG"


def again(text: str, name: str = "again.toml") -> Settings:
    """The settings that a config with this text gives."""
    path = Path("config", name)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return Settings.load(path)


def same(one: Settings, other: Settings) -> bool:
    """Whether they say the same, in the same order: that of a schema's fields is the model's."""
    return in_order(one.model_dump()) == in_order(other.model_dump())


def in_order(value: Any) -> Any:
    if isinstance(value, dict):
        return [(name, in_order(item)) for name, item in value.items()]
    return [in_order(item) for item in value] if isinstance(value, list) else value


def shown(path: Path, *args: str) -> str:
    """What the command prints."""
    done = CliRunner().invoke(app, ["config", "show", str(path), *args])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_what_is_shown_of_each_example_loads_to_the_same(example: Path, folder: Path) -> None:
    (folder / "config").mkdir()
    here = Path(shutil.copy(example, folder / "config"))
    text = shown(here.relative_to(folder))
    assert same(again(text), Settings.load(here))
    assert same(again(to_toml(again(text))), Settings.load(here)), "and so does that"


WHOLE = """
[input]
path = ["a/*.jsonl", "b.jsonl"]

[task]
prompt = 'He said "{{ text }}": no\\more \\"'
system = "two\\r\\nlines, a tab\\t, a bell\\u0007, a del\\u007f, 이 제품, 🎉"
call = "some"
callback = "mine:save"

[[task.tools]]
name = "one"
labels = { "a.b" = ["x", "y\\n"], "c d" = [1, 2.5, true] }

[[task.tools]]
python = "mine:two"

[[task.tools]]
name = "three"
parameters = { type = "object", properties = { deep = { type = "array", items = { enum = ["%s"] } }, none = {} } }

[[task.validators]]
expression = "len(text) > 0"

[[task.examples]]
text = "first"
label = { tool = "one", fields = [{ a = 1 }, { }], when = [] }

[task.media]
images = ["photo"]

[model]
name = "gpt-6-luna"
price = { input = 0.1, output = 1e-7 }
[model.parameters]
stop = ["\\n", "#"]
temperature = 1.0
big = 9223372036854775807
odd_one = { "odd key" = [[1, [2]], [{ x = { y = 1 } }]], empty = {} }

[limits]
concurrency = "auto"
run_between = ["22:00", "07:00"]

[output]
formats = ["csv", "sql"]
sql = { table = "mine.labels" }

[rehearsal]
faults = { 503 = 0.1, bad_label = 0.2 }
gold = { "한" = "gold" }
""" % ("a long value " * 12)


def test_every_kind_of_setting_loads_to_the_same(config: Config) -> None:
    settings = Settings.load(config(WHOLE), ["limits.budget_usd=5", "limits.stop_at=none"])
    text = to_toml(settings)
    assert same(again(text), settings)
    assert "budget_usd = 5.0  # --set\n" in text
    assert "[[task.tools]]  # config/a.toml:" in text
    assert 'run_between = ["22:00", "07:00"]  # config/a.toml:' in text
    assert "# stop_at: not set  # --set\n" in text
    assert "# requests_per_day: not set\n" in text
    assert shown(config(WHOLE)) == to_toml(Settings.load(config(WHOLE)))
    found = codec.loads(shown(config(WHOLE), "--json"))
    assert found["task.tools"]["value"][1] == {"python": "mine:two"}
    assert found["task.validators"]["value"] == [{"expression": "len(text) > 0"}]


def test_secrets_are_comments(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("LABELPIPE_NOTIFY__URL", f"https://example.com/{SECRET}")
    added = f"""
[model.headers]
Authorization = "Bearer {SECRET}"
"X-Team" = "a"
[notify]
command = "tell {SECRET}"
[output]
formats = ["sql"]
sql = {{ url = "sqlite:///{SECRET}.db" }}
"""
    settings = Settings.load(config(add=added))
    text = to_toml(settings)
    assert SECRET not in text
    for line in (
        "# Authorization: set, and not shown  # config/a.toml:16",
        "# url: set, and not shown  # environment LABELPIPE_NOTIFY__URL",
        "# url: set, and not shown  # config/a.toml:22",
        "# API key: set  # environment OPENAI_API_KEY",
    ):
        assert f"{line}\n" in text
    monkeypatch.delenv("LABELPIPE_NOTIFY__URL")
    bare = {"headers": {}, "url": None, "command": None}
    expected = settings.model_dump()
    for table, key in (("model", "headers"), ("notify", "url"), ("notify", "command")):
        expected[table][key] = bare[key]
    expected["output"]["sql"]["url"] = None
    assert again(text).model_dump() == expected
    assert "# url: not set\n" in to_toml(Settings.load(config())), "what is not set is not said to be"


def test_what_toml_cannot_say_is_said_to_come_from_python(config: Config) -> None:
    path = config(config().read_text().replace('path = "data/reviews.jsonl"', ""))
    parameters = {"stop": None, "seed": 1, "odd": [{"x": 1}, 2, None], "odd_one": {"a": {"b": None, "c": 2}}}
    settings = Settings.load(path, model={"parameters": parameters})
    text = to_toml(settings)
    assert "# path: given in Python" in text
    for name in ("stop", "b", "odd"):
        assert f"# {name}: given in Python" in text
    assert again(text).model.parameters == {"seed": 1, "odd_one": {"a": {"c": 2}}}


JSON = st.recursive(
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(free=st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), JSON, max_size=4))
def test_whatever_json_holds_stands_in_toml(free: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("any"))
    try:
        settings = Settings(
            input={"path": "a.jsonl"},
            task={"prompt": "p", "function": {"name": "f", "parameters": {"x": free}}, "examples": [{"e": free}]},
            model={"name": "m", "parameters": {"odd_one": free}},
        )
        found = again(to_toml(settings))
        assert same(found, settings)
        assert repr(found.model.parameters) == repr(settings.model.parameters), "1.0 is not 1, and neither is True"
    finally:
        os.chdir(before)
