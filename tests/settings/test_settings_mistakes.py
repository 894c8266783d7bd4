"""Each mistake is told in its exact words: where, which key, what was there, what was expected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, Mistake
from pipeline.settings import Settings

Config = Callable[..., Path]


def told(*arguments: Any, **direct: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        Settings.load(*arguments, **direct).need_input()
    assert str(caught.value) == "\n".join(map(str, caught.value.mistakes))
    return str(caught.value).split("\n")


#: what is added to the whole config, from its line 14 on -> what is told
ADDED = {
    "outage_limit = 3600": "14: limits.outage_limit: unknown key; did you mean limits.outage_limit_s?",
    "concurency = 3": "14: limits.concurency: unknown key; did you mean limits.concurrency?",
    'requests_per_minute = "fast"': (
        '14: limits.requests_per_minute: got "fast" (text); expected a whole number of 1 or more'
    ),
    "requests_per_minute = 0": "14: limits.requests_per_minute: got 0; expected a whole number of 1 or more",
    "requests_per_minute = 6.5": (
        "14: limits.requests_per_minute: got 6.5 (number); expected a whole number of 1 or more"
    ),
    "max_attempts = true": (
        "14: limits.max_attempts: got true (true or false); expected a whole number of 1 or more"
    ),
    "grace_s = nan": "14: limits.grace_s: got nan; expected a number of 0 or more",
    "probe_max_s = 0": "14: limits.probe_max_s: got 0; expected a number above 0",
    'on_day_limit = "wat"': '14: limits.on_day_limit: got "wat"; expected one of wait, stop; did you mean wait?',
    'on_day_limit = "never"': '14: limits.on_day_limit: got "never"; expected one of wait, stop',
    'stop_at = "25:00"': (
        '14: limits.stop_at: got "25:00"; expected a time of day from 00:00 to 24:00, like "22:00" or "7:30"'
    ),
    "stop_at = 07:00:00": '14: limits.stop_at: got 07:00:00 (date or time); expected a time like "07:00"',
    'run_between = ["22:00"]': (
        '14: limits.run_between: got ["22:00"]; expected two times like ["22:00", "07:00"]'
    ),
    'run_between = ["22:00", "7 am"]': (
        '14: limits.run_between: got ["22:00", "7 am"]; "7 am" is not a time: '
        'expected a time of day from 00:00 to 24:00, like "22:00" or "7:30"'
    ),
    'run_between = ["22:00", "22:00"]': (
        '14: limits.run_between: got ["22:00", "22:00"]; it begins and ends at the same time: '
        "leave it out to run at all hours"
    ),
    "concurrency_min = 9": (
        "14: limits.concurrency_min: no longer a key, because `auto` starts low and finds its own minimum; remove it"
    ),
    "[rehearsal]\noutages = [[10, 40]]": (
        "15: rehearsal.outages: no longer a key; run `labelpipe rehearse --outage 10-40` and set model.base_url to the "
        "address that it prints"
    ),
    "[rehersal]\nseed = 1": "14: rehersal: unknown key; did you mean rehearsal?",
    "[zzz]": "14: zzz: unknown key; "
    "known tables: input, task, model, limits, batch, flex, scale, quality, output, notify, telemetry, rehearsal",
    "[output]\nzzz = 1": "15: output.zzz: unknown key; "
    "known in [output]: dir, columns, formats, order, report, escape_formulas, reviewed, sql",
    "output.dir = 'x'": "14: limits.output: unknown key; did you mean output?",
    "[output]\nconcurrency = 1": "15: output.concurrency: unknown key; did you mean limits.concurrency?",
    "[output]\ncolumns = 'id'": (
        '15: output.columns: got "id" (text); expected a list of fields, like ["id", "text"]'
    ),
    "[output]\ncolumns = ['id', 'id']": '15: output.columns: "id" occurs twice',
    "[output]\nformats = ['cvs']": (
        '15: output.formats: got ["cvs"]; expected a list of csv, jsonl, parquet, sql; did you mean csv?'
    ),
    "[output]\nformats = []": "15: output.formats: got []; expected a list of csv, jsonl, parquet, sql",
    "[output]\ndir = ''": '15: output.dir: got ""; expected the path of a folder',
    "[task.labels.x]": (
        "14: task.labels.x: got an empty table; expected the values that the label may have, with their meanings"
    ),
    "[rehearsal]\naccuracy = 90": "15: rehearsal.accuracy: got 90; expected a number from 0 to 1",
    "[rehearsal]\n[rehearsal.faults]\n\n429 = 1.5": (
        "17: rehearsal.faults.429: got 1.5; expected a number from 0 to 1"
    ),
    "[rehearsal]\nfaults = {a = 0.6, b = 0.6}": "15: rehearsal.faults: they add up to 1.2; expected 1 or less",
    "[model.parameters]\nstream = true": (
        "15: model.parameters.stream: each call sends it anyway: answers are read whole"
    ),
    "[model.parameters]\ntools = []": (
        "15: model.parameters.tools: each call sends it anyway: "
        "set task.labels, task.function, task.python or task.tools instead"
    ),
    "[model.parameters]\nn = 3": (
        "15: model.parameters.n: got 3; one answer labels one record, so it is 1 or left out"
    ),
    "[model.parameters]\nparallel_tool_calls = true": (
        "15: model.parameters.parallel_tool_calls: labelpipe sets it itself where task.call or task.rows asks for "
        "several calls"
    ),
    "[model.parameters]\ntimeout_s = 3": (
        "15: model.parameters.timeout_s: a key of [model], not of [model.parameters]; "
        "write model.timeout_s, above that table"
    ),
    "[model.parameters]\nuntil = 2026-01-01": (
        "15: model.parameters.until: got 2026-01-01 (date or time); expected a value that JSON has too"
    ),
    "[model.price]\ninput = 1": "14: model.price.output: missing; expected a number of 0 or more",
}  # fmt: skip


@pytest.mark.parametrize("added", ADDED)
def test_a_mistake_in_the_file(added: str, config: Config) -> None:
    assert told(config(add=added)) == [f"config/a.toml:{ADDED[added]}"]


#: what stands in the config in place of a line of it -> what is told
REPLACED = {
    ('path = "data/reviews.jsonl"', "path = 3"): (
        '2: input.path: got 3 (whole number); expected a path, a list of paths, a glob, or "-" for stdin'
    ),
    ('path = "data/reviews.jsonl"', "path = ['a', 3]"): (
        '2: input.path: got ["a", 3]; expected a path, a list of paths, a glob, or "-" for stdin'
    ),
    ('path = "data/reviews.jsonl"', "path = []"): (
        "2: input.path: got []; expected at least one path, and none that is empty"
    ),
    ('path = "data/reviews.jsonl"', ""): (
        '1: input.path: missing; expected a path, a list of paths, a glob, or "-" for stdin'
    ),
    ('path = "data/reviews.jsonl"', "path = 'a'\nencoding = 'utf9'"): (
        '3: input.encoding: got "utf9"; no such encoding; did you mean utf-8?'
    ),
    ('prompt = "Label this: {{ text }}"', "prompt = '''\n'''"): (
        '5: task.prompt: got ""; expected text that is not empty'
    ),
    ('prompt = "Label this: {{ text }}"', "prompt = 'x'\npython = 'my.labels'"): (
        '6: task.python: got "my.labels"; expected "module:name", like "my_labels:Sentiment"'
    ),
    ('prompt = "Label this: {{ text }}"', "prompt = 'x'\npython = 'my.labels:A'"): (
        "4: task: got task.labels and task.python; expected exactly one of task.labels, task.function, task.python "
        "and task.tools"
    ),
    ('label = ["positive", "negative"]', ""): (
        '6: task.labels: got no label field; expected at least one, like label = ["yes", "no"]'
    ),
    ('label = ["positive", "negative"]', "a = ['x', 'x']"): '7: task.labels.a: "x" occurs twice',
    ('label = ["positive", "negative"]', "a = [1, 1.0]"): "7: task.labels.a: 1 occurs twice",
    ('label = ["positive", "negative"]', "a = []"): (
        "7: task.labels.a: got an empty list; expected the values that the label may have"
    ),
    ('label = ["positive", "negative"]', "a = ['x', ' ']"): (
        "7: task.labels.a: one of the values is empty text; a label cannot be empty"
    ),
    ('label = ["positive", "negative"]', "a = 'x'"): (
        '7: task.labels.a: got "x"; expected a list of values, a table of values and their meanings, a file of labels '
        '(.csv or .jsonl), { any_of = ... }, "text", or a range like "1..5"'
    ),
    ('[task.labels]\nlabel = ["positive", "negative"]', ""): (
        "4: task: got none of them; expected exactly one of task.labels, task.function, task.python and task.tools"
    ),
    ('[task.labels]\nlabel = ["positive", "negative"]', "function = {name = 'a b', parameters = {}}"): (
        '6: task.function.name: got "a b"; expected 1 to 64 letters, digits, _ and -'
    ),
    ('[task.labels]\nlabel = ["positive", "negative"]', "[task.function]\nname = 'a'\n\nparameters = 5"): (
        "9: task.function.parameters: got 5 (whole number); "
        "expected a table that is a JSON Schema, or the path of a .json file with one"
    ),
    ('name = "gpt-6-luna"', ""): "9: model.name: missing; expected text that is not empty",
    ('name = "gpt-6-luna"', "name = 'a'\ntemperature = 0"): (
        "11: model.temperature: unknown key; did you mean model.parameters.temperature?"
    ),
    ('name = "gpt-6-luna"', "name = 'a'\n[[quality.voters]]\ntemperature = 0"): (
        "12: quality.voters.0.temperature: unknown key; did you mean quality.voters.0.parameters.temperature?"
    ),
    ('name = "gpt-6-luna"', "name = 'a'\ntool_choice = 'force'"): (
        '11: model.tool_choice: got "force"; expected one of forced, required, auto, schema; did you mean forced?'
    ),
    ('name = "gpt-6-luna"', "name = 'a'\nbase_url = 'rehersal'"): (
        '11: model.base_url: got "rehersal"; expected an address that starts with http, or "rehearsal"; '
        "did you mean rehearsal?"
    ),
    ('name = "gpt-6-luna"', "name = 'a'\nbase_url = 'http://['"): (
        '11: model.base_url: got "http://["; expected an address that starts with http, or "rehearsal"'
    ),
    ("[limits]\nconcurrency = 16", "[[limits]]\nconcurrency = 16"): (
        "12: limits: got [{ concurrency = 16 }] (list); expected a table"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("old", "new"), REPLACED)
def test_a_mistake_in_place_of_a_line(old: str, new: str, config: Config) -> None:
    text = config().read_text()
    assert old in text
    assert told(config(text.replace(old, new))) == [f"config/a.toml:{REPLACED[old, new]}"]


def test_a_table_that_is_a_value(config: Config) -> None:
    text = "limits = 5\n" + config().read_text().replace("[limits]\nconcurrency = 16\n", "")
    expected = ["config/a.toml:1: limits: got 5 (whole number); expected a table"]
    assert told(config(text)) == expected
    assert told(config(text), ["limits.concurrency=8"]) == expected


def test_a_mistake_elsewhere_names_the_place(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text("LABELPIPE_INPUT__LIMIT=0\n")
    monkeypatch.setenv("LABELPIPE_LIMITS__GRACE_S", "x")
    monkeypatch.setenv("LABELPIPE_LIMITS__GRACES", "8")
    overrides = ["model.timeout_s=soon", "outptu.dir=x", "just words", "limits.concurrency=-1"]
    assert sorted(told(config(add="[output]\nzzz = 1"), overrides, task={"dedupe": "yes"})) == sorted(
        [
            (
                "config/a.toml:15: output.zzz: unknown key; "
                "known in [output]: dir, columns, formats, order, report, escape_formulas, reviewed, sql"
            ),
            ".env LABELPIPE_INPUT__LIMIT: input.limit: got 0; expected a whole number of 1 or more",
            'environment LABELPIPE_LIMITS__GRACE_S: limits.grace_s: got "x"; expected a number of 0 or more',
            "environment LABELPIPE_LIMITS__GRACES: limits.graces: unknown key; did you mean limits.grace_s?",
            '--set model.timeout_s=soon: model.timeout_s: got "soon"; expected a number above 0',
            "--set outptu.dir=x: outptu: unknown key; did you mean output?",
            "--set just words: expected key=value with a dotted key, like limits.concurrency=8",
            (
                "--set limits.concurrency=-1: limits.concurrency: got -1; "
                'expected a whole number from 1 to 10000, or "auto"'
            ),
            'Settings: task.dedupe: got "yes" (text); expected true or false',
        ]
    )


def test_mistakes_of_the_file_come_first_and_by_line(config: Config) -> None:
    lines = told(config(add='max_repairs = -1\n[output]\norder = "up"\nzzz = 1\n'), ["limits.grace_s=x"])
    assert [line.split(": ")[0] for line in lines] == [
        "config/a.toml:14",
        "config/a.toml:16",
        "config/a.toml:17",
        "--set limits.grace_s=x",
    ]


def test_a_mistake_has_its_facts_as_attributes(config: Config) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings.load(config(add="grace_s = -1"))
    text = "got -1; expected a number of 0 or more"
    assert caught.value.mistakes == (Mistake("config/a.toml", 14, "limits.grace_s", text),)


def test_nothing_given_at_all() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings()
    assert [str(one) for one in caught.value.mistakes] == [
        'Settings: input.path: missing; expected a path, a list of paths, a glob, or "-" for stdin',
        "Settings: task.prompt: missing; expected text that is not empty",
        "Settings: model.name: missing; expected text that is not empty",
    ]


@pytest.mark.parametrize(
    ("text", "place", "row"),
    [
        ("[limits]\nab 6\n", "2: not TOML at column 4", "ab 6"),
        ("[limits]\na = 1\na = 2\n", "3: not TOML at column 6", "a = 2"),
        ("[limits]\n  a = [1,\n", "2: not TOML", "a = [1,"),
    ],
)
def test_text_that_is_not_toml(text: str, place: str, row: str, config: Config) -> None:
    (line,) = told(config(text))
    assert line.startswith(f"config/a.toml:{place}: ")  # then tomllib's own words
    assert line.endswith(f": {row}")
    assert "(at " not in line


def test_a_file_that_is_not_there(config: Config) -> None:
    config(name="sentiment.toml")
    config(name="topics.toml")
    both = "config/sentiment.toml, config/topics.toml"
    near = f"did you mean config/sentiment.toml? configs there: {both}"
    assert told("config/sentimnt.toml") == [f"config/sentimnt.toml: no such file; {near}"]
    assert told("config/x") == [f"config/x: no such file; configs there: {both}"]
    assert told("config") == [f"config: is a folder, not a config file; configs there: {both}"]
    assert told("confg/a.toml") == ["confg/a.toml: no such file, nor a folder confg"]
    assert told("a.toml") == ["a.toml: no such file; and no other *.toml there; `labelpipe init` writes one"]


def test_a_file_that_is_not_utf8(config: Config) -> None:
    path = config()
    path.write_bytes("key = '문장'".encode("cp949"))
    assert told(path) == ["config/a.toml: is not UTF-8: invalid start byte at byte 7"]
    Path(".env").write_bytes(b"\xff\xfe")
    assert told(config()) == [".env: cannot be read: it is not UTF-8"]


def test_a_byte_order_mark_and_windows_line_ends_are_taken(config: Config) -> None:
    path = config(add="zzz = 1\n")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert told(path)[0].startswith("config/a.toml:14: limits.zzz: unknown key")


def test_a_long_or_many_lined_value_stays_on_one_short_line(config: Config) -> None:
    value = "a\u2028b\n" * 100
    (line,) = told(config(add=f'on_day_limit = """{value}"""'))
    assert line.startswith('config/a.toml:14: limits.on_day_limit: got "a\\u2028b\\na')
    assert len(line) < 150


def test_the_config_cannot_give_orders_to_the_settings_library(config: Config) -> None:
    (line,) = told(config("_cli_parse_args = true\n" + config().read_text()))
    assert line.startswith("config/a.toml:1: _cli_parse_args: unknown key; known tables: input,")
