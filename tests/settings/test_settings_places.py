"""The line of each key is found in any TOML text, whatever its strings and comments look like."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as run_with
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.settings import Settings
from pipeline.settings.tomltext import key_lines, line_of

#: the folder of the test is the same for all examples; they do not touch it
shared_folder = run_with(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

#: what may stand between the keys of a table without being one
NOISE = st.sampled_from(["", "# zzz = 1", "   ", "# [zzz]", "#'''", '#"""'])
PROMPTS = st.sampled_from(
    ['"""\n[limits]\nzzz = 1\n"""', "'''\n[output]\nzzz = '''", '"zzz = 1"', '"""a\\"""\nzzz=1"""', "'''''a'''''"]
)
QUOTES = st.sampled_from(["{}", "'{}'", '"{}"', " {} "])
NAMES = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=3, max_size=12)


@shared_folder
@given(data=st.data())
def test_a_random_unknown_key_is_refused_with_its_line(data: st.DataObject, tmp_path_factory: Any) -> None:
    tables = {
        "input": ["path = 'a'", "format = 'csv'"],
        "task": [f"prompt = {data.draw(PROMPTS)}", "labels.label = [ 'a', # zzz = 1\n'b' ]"],
        "model": ["name = 'm'", "price = { input = 1, output = 2 }"],
        "output": ["dir = 'x'", "columns = ['a',\n  'zzz = 1',\n]"],
        "limits": ["grace_s = 3"],
    }
    table = data.draw(st.sampled_from(sorted(tables)))
    fields = Settings.model_fields[table].annotation.model_fields  # type: ignore[union-attr]
    name = data.draw(NAMES.filter(lambda name: name not in fields))
    unknown = data.draw(QUOTES).format(name) + " = 'UNKNOWN'"
    tables[table].insert(data.draw(st.integers(0, len(tables[table]))), unknown)
    blocks = [f"[{one}]\n" + "\n".join(f"{line}\n{data.draw(NOISE)}" for line in tables[one]) for one in tables]
    text = "\n".join(data.draw(st.permutations(blocks)))
    line = text[: text.index("'UNKNOWN'")].count("\n") + 1

    path = tmp_path_factory.mktemp("random") / "a.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Settings.load(path)
    (mistake,) = caught.value.mistakes
    assert (mistake.source, mistake.line, mistake.key) == (str(path), line, f"{table}.{name}")
    assert mistake.text.startswith("unknown key; ")


KEYS = st.one_of(
    st.text("abc_-1", min_size=1, max_size=4),
    st.text("a.=[]#' \\\"\n", max_size=4).map(json.dumps),
    st.text('a.=[]#" \\', max_size=4).map("'{}'".format),
)
VALUES = st.sampled_from(
    [
        "1",
        "'#'",
        '"\\"="',
        "[1, [2,\n3], # ]\n]",
        "{ a = 1, b = { c = '}' } }",
        '"""\na = 1\n\\"" b"""',
        "'''\n[x]'''''",
        "2026-01-01 10:00:00",
        "true # a = 1",
        "-1_000.5e3",
        '"""a"""""',
        '"""[""""',
        "'''a''''",
        "''",
        '""',
    ]
)
TABLES = st.tuples(st.lists(KEYS, max_size=2), st.lists(st.tuples(KEYS, VALUES, NOISE), max_size=4))


@shared_folder
@given(st.lists(TABLES, max_size=4))
def test_every_key_of_a_random_document_is_found_where_it_was_written(tables: list[Any]) -> None:
    text, expected = "", {}
    for number, (header, pairs) in enumerate(tables):
        path = (f"t{number}", *map(_unquoted, header))
        expected[path] = text.count("\n") + 1
        text += f"[ {' . '.join([path[0], *header])} ] # [no]\n"
        for key, value, noise in pairs:
            if (*path, _unquoted(key)) in expected:
                continue
            expected[(*path, _unquoted(key))] = text.count("\n") + 1
            text += f"\t{key}= {value}\n{noise}\n"
    tomllib.loads(text)
    found = key_lines(text)
    assert {path: line for path, line in found.items() if path in expected} == expected
    # What else was found are tables that were only named in passing: [t0.a.b] names t0.a.
    assert all(any(path == longer[: len(path)] for longer in expected) for path in found)


def _unquoted(key: str) -> str:
    return next(iter(tomllib.loads(f"{key} = 1")))


def test_arrays_of_tables_and_dotted_keys_have_lines_too() -> None:
    text = "a.b.c = 1\n[[t.x]]\nk = 1\n[[t.x]]\n[t.x.y]\nk = 2\n[t]\n"
    names = {".".join(map(str, path)): line for path, line in key_lines(text).items()}
    assert names == {
        "a": 1,
        "a.b": 1,
        "a.b.c": 1,
        "t": 7,
        "t.x": 2,
        "t.x.0": 2,
        "t.x.0.k": 3,
        "t.x.1": 4,
        "t.x.1.y": 5,
        "t.x.1.y.k": 6,
    }


def test_a_key_within_an_inline_table_has_the_line_of_its_parent() -> None:
    lines = key_lines("[a]\nb = { c = 1 }\n")
    assert [line_of(lines, path) for path in [("a", "b", "c"), ("a", "x"), ("y",)]] == [2, 1, None]
