"""Labels under other names in a config, with all else byte for byte as it was."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.labelfields import Rename
from pipeline.settings import renamed_config
from pipeline.settings.tomltext import nodes, value_of_node

MERGE = Rename("topic", (("account", "login"),))
NEW = Rename("topic", (("account", "user account"), ("login", "user account")))
SWAP = Rename("topic", (("account", "login"), ("login", "account")))


@pytest.mark.parametrize(
    ("before", "rename", "after"),
    [
        ('topic = ["billing", "account", "login"]  # account', MERGE, 'topic = ["billing", "login"]  # account'),
        ('topic = ["billing", \'account\', "login"]', NEW, 'topic = ["billing", "user account"]'),
        ('topic = ["account"]', MERGE, 'topic = ["login"]'),
        ('topic = ["login", "account"]\r\n', MERGE, 'topic = ["login"]\r\n'),
        (
            'topic = [\n  # first\n  "login", # l\n  "account" # a\n]',
            MERGE,
            'topic = [\n  # first\n  "login", # l\n]',
        ),
        ('topic = { account = "x, account", "login" = "y" }', MERGE, 'topic = { "login" = "y" }'),
        ('topic = { login = "y", account = "x" }', NEW, 'topic = { "user account" = "y" }'),
        ('topic = { login = "y", account = "x" }', SWAP, 'topic = { account = "y", login = "x" }'),
        ('topic.account = "x" # a\ntopic.login = "y"', MERGE, 'topic.login = "y"'),
        ('topic = { any_of = ["account", "b"] }', MERGE, 'topic = { any_of = ["login", "b"] }'),
        ('[task.labels.topic] # t\nlogin="" # l\naccount="" # a\n', MERGE, '[task.labels.topic] # t\nlogin="" # l\n'),
        ('[task.labels.topic.any_of]\naccount = ""', NEW, '[task.labels.topic.any_of]\n"user account" = ""'),
        ('topic = "account.csv"\nother = ["account"]', MERGE, 'topic = "account.csv"\nother = ["account"]'),
    ],
)
def test_only_the_labels_change(before: str, rename: Rename, after: str) -> None:
    head = (
        '# account\nd = 2026-01-01 10:00:00\nx = """\n[task.labels]\ntopic = ["account"]"""\n[task.labels] # account\n'
    )
    assert renamed_config(head + before, rename) == head + after


def test_examples_have_the_new_name() -> None:
    text = """[task]
examples = [{ text = "account", label = { topic = "account", other = "account" } }]
"""
    assert renamed_config(text, MERGE) == text.replace('topic = "account"', 'topic = "login"')
    text = '[[task.examples]]\ntext = "a"\n[task.examples.label]\ntopic = ["account", "b"] # c\n'
    assert renamed_config(text, MERGE) == text.replace('"account"', '"login"')


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6), min_size=2, unique=True))
def test_any_label_goes_through(names: list[str]) -> None:
    import tomli_w

    text = tomli_w.dumps({"task": {"labels": {"a": names, "b": dict.fromkeys(names, names[0])}}})
    for column in ("a", "b"):
        text = renamed_config(text, Rename(column, ((names[0], "new name, # too"),)))
    labels = tomllib.loads(text)["task"]["labels"]
    assert labels["a"] == list(labels["b"]) == ["new name, # too", *names[1:]]


def test_every_key_and_item_has_its_place() -> None:
    text = 'a = 1\n[b]\n"c d" = [1, [2, { e = "x" }]] # y\n[[f]]\ng.h = { i = """j\n""" }\n[[f]]\n'
    found = {node.path: value_of_node(text, node) for node in nodes(text)}
    assert found == {
        ("a",): 1,
        ("b", "c d"): [1, [2, {"e": "x"}]],
        ("b", "c d", 0): 1,
        ("b", "c d", 1): [2, {"e": "x"}],
        ("b", "c d", 1, 0): 2,
        ("b", "c d", 1, 1): {"e": "x"},
        ("b", "c d", 1, 1, "e"): "x",
        ("f", 0, "g", "h"): {"i": "j\n"},
        ("f", 0, "g", "h", "i"): "j\n",
    }
