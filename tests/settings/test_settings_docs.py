"""docs/config.md says what the code does: every key, with what it takes, its default and its meaning."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from pipeline.settings import Key, Settings, keys
from pipeline.settings.layers import Kind
from pipeline.settings.texts import as_toml

PAGE = Path(__file__).parents[2] / "docs" / "config.md"
TEXT = PAGE.read_text(encoding="utf-8")
LINES = [line for line in TEXT.splitlines() if line.startswith("| `")]
BLOCKS = re.findall(r"^```toml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def row(key: Key) -> str:
    """How the line of a key begins in the tables of docs/config.md; what it means follows."""
    default = "required" if key.required else "unset" if key.default is None else f"`{as_toml(key.default)}`"
    return f"| `{key.name}` | {key.takes} | {default} |"


def test_every_key_has_its_line_and_no_line_is_left_over() -> None:
    assert [line.rpartition(" |")[0].rpartition("|")[0] + "|" for line in LINES] == [row(key) for key in keys(Settings)]


def test_the_rule_of_the_variables_is_the_one_in_the_code() -> None:
    told = re.findall(r"`([a-z.]+)` is `(LABELPIPE_[A-Z_]+)`", TEXT)
    assert len(told) == 2
    assert set(told) <= {(key.name, key.variable) for key in keys(Settings)}


def test_every_key_says_what_it_means_and_when_to_set_it() -> None:
    assert [line for line in LINES if not re.search(r"\| [A-Z`].*\. \|$", line)] == []
    assert [key.name for key in keys(Settings) if key.takes == "a value"] == []
    assert [line for line in LINES if not re.search(r"\b([Ss]et|[Ll]ower|[Rr]aise|[Tt]urn|[Uu]se)\b", line)] == []


def test_the_order_of_precedence_is_the_one_in_the_code() -> None:
    listed = re.findall(r"^\d\. (.+?)(?:: .*)?$", TEXT.split("## Where a value comes from")[1], re.MULTILINE)[:6]
    assert listed == ["Python", "--set", "environment", ".env", "the config file", "default"]
    assert [kind.value for kind in reversed(Kind)] == [*listed[:4], "file", "default"]


def test_examples_are_valid(subtests: pytest.Subtests) -> None:
    for number, block in enumerate(BLOCKS):
        with subtests.test(f"block {number}"):
            given = tomllib.loads(block)
            task = {"prompt": "Label this: {{ text }}"} | given.pop("task", {})
            if not {"labels", "function", "python", "tools"} & task.keys():
                task["labels"] = {"label": ["a", "b"]}
            path = {} if "url_env" in given.get("input", {}) else {"path": "a.jsonl"}
            base = {"input": path, "model": {"name": "gpt-6-luna"}}
            merged = {name: base.get(name, {}) | given.get(name, {}) for name in base | given}
            assert Settings(task=task, **merged).task.prompt


def test_every_table_has_an_example() -> None:
    shown_tables = {name for block in BLOCKS for name in tomllib.loads(block)}
    assert shown_tables == set(Settings.model_fields)
