"""`rename`: labels under other names in ledger, files of rows, corrections and config, without a call."""

from __future__ import annotations

import csv
import itertools
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from pipeline import Settings, evaluate, rename, replay, run, verify
from pipeline.cli import app
from pipeline.errors import RunInUseError, SetupError
from pipeline.store import RunDir, open_reviews
from pipeline.store.answers import Answer, label_digest

CONFIG = """\
# tickets
[input]
path = "in.jsonl"
key = "id"

[task]
system = "An account is not a login."   # for the model
prompt = "{{ text }}"

[task.labels]
tags = { any_of = ["account", "billing", "login"] }   # several

[task.labels.topic]   # what it is about
billing = "asks about an invoice"   # money
account = "cannot change the account"
login = "cannot get in"   # passwords
other = ""

[[task.examples]]
text = "Where is my account?"
label = { topic = "account", tags = ["account"] }   # an example

[model]
name = "m"
base_url = "rehearsal"

[rehearsal]
gold = { topic = "right", tags = "right_tags" }
accuracy = 1
latency_ms = 0

[output]
dir = "run"
formats = ["csv", "jsonl", "parquet"]
"""
VOTERS = """
[quality]
vote_on = ["topic", "tags"]
[[quality.voters]]
prompt = "Again: {{ text }}"
[[quality.voters]]
prompt = "Once more: {{ text }}"
"""
TOPICS = ["billing", "account", "login", "other"]
Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_input(12)
    Path("job.toml").write_text(CONFIG)
    return tmp_path


def write_input(count: int, **more: Any) -> None:
    rows = [
        {**more, "id": f"r{at}", "text": f"text {at}", "right": TOPICS[at % 4], "right_tags": ["billing", "account"]}
        for at in range(count)
    ]
    Path("in.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def labels(column: str = "topic") -> dict[str, Any]:
    """A column of labels.csv, by key; the other files have the same."""
    with Path("run/labels.csv").open(newline="") as file:
        cells = {row["id"]: row[column] for row in csv.DictReader(file)}
    found = {row["id"]: row[column] for row in rows()}
    assert {key: cell if cell[:1] != "[" else json.loads(cell) for key, cell in cells.items()} == found
    return found


def rows() -> Rows:
    return [json.loads(line) for line in Path("run/labels.jsonl").read_text().splitlines()]


def command(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def run_again(**more: Any) -> int:
    """How many records the next run asks for; it must not ask about any change."""
    return run(Settings.load("job.toml", more)).session_records


def renamed_topics(**names: str) -> dict[str, str]:
    return {f"r{at}": names.get(TOPICS[at % 4], TOPICS[at % 4]) for at in range(12)}


# a run under other names


def test_a_merge_is_everywhere_and_the_next_run_asks_nothing() -> None:
    run(Settings.load("job.toml"))
    told = command("rename", "run", "topic", "account=login")
    assert told.exit_code == 0, told.output
    assert told.stdout.splitlines() == [
        "Renamed labels of topic: account -> login",
        "  records   3 records of run",
        "  edited    job.toml",
        "  note      task.system still says 'account'",
        "No call was made.",
    ]
    assert labels() == renamed_topics(account="login")
    assert set(map(tuple, labels("tags").values())) == {("account", "billing")}, "another field"
    expected = CONFIG.replace('account = "cannot change the account"\n', "").replace(
        '{ topic = "account", ', '{ topic = "login", '
    )
    assert Path("job.toml").read_text() == expected
    assert json.loads(Path("run/summary.json").read_text())["labels"]["topic"] == {"login": 6, "billing": 3, "other": 3}
    history = json.loads(Path("run/manifest.json").read_text())["history"]
    assert [one["what"] for one in history] == ["renamed labels of topic: account -> login; 3 records"]
    assert verify("run").ok
    assert run_again() == 0
    assert json.loads(Path("run/manifest.json").read_text())["history"] == history
    assert command("rename", "run", "topic", "login=access").exit_code == 0
    foreign = evaluate("run", column="right", field="topic").columns["topic"]["no_label"]
    assert foreign == {"n": 6, "values": {"account": 3, "login": 3}, "like": {"account": "access", "login": "access"}}


def test_replay_gives_the_new_name_and_the_raw_answers_stay() -> None:
    run(Settings.load("job.toml"))
    rename("job.toml", "topic", {"account": "user account", "login": "sign-in"})
    rename("job.toml", "topic", {"user account": "sign-in"})
    assert "sign-in" in Path("run/report.html").read_text()
    rename("job.toml", "tags", {"account": "login"})
    after = labels()
    assert after == renamed_topics(account="sign-in", login="sign-in")
    assert set(map(tuple, labels("tags").values())) == {("billing", "login")}, "in the order of the config"
    answers = RunDir(Path("run")).ledger.read_bytes()
    assert b'\\"topic\\":\\"account\\"' in answers
    again = replay("job.toml")
    assert (again.labelled, again.session_records) == (12, 12)
    assert labels() == after
    assert verify("run").ok
    assert run_again() == 0


def test_two_names_are_exchanged_once() -> None:
    run(Settings.load("job.toml"))
    rename("run", "topic", {"account": "login", "login": "account"})
    assert labels() == renamed_topics(account="login", login="account")
    replay("job.toml")
    assert labels() == renamed_topics(account="login", login="account")
    assert 'login = "cannot change the account"' in Path("job.toml").read_text()
    write_input(16)
    assert run_again() == 4
    assert labels()["r13"] == "account", "new answers are taken as they are"
    replay("job.toml")
    assert labels()["r13"] == "account"


def test_a_changed_input_asks_nothing_that_was_answered() -> None:
    run(Settings.load("job.toml"))
    rename("run", "topic", {"account": "login"})
    write_input(12, more="a field that no prompt uses")
    assert run_again() == 0
    with Path("in.jsonl").open("a") as file:
        file.write(json.dumps({"id": "same", "text": "text 1", "right": "other"}) + "\n")
    again = run(Settings.load("job.toml"))
    assert (again.session_records, again.copied, again.calls) == (1, 1, 0), "its text was answered before"
    assert labels()["same"] == "login"
    replay("job.toml")
    assert labels()["same"] == "login"


def test_votes_have_the_new_names_and_are_counted_again() -> None:
    Path("job.toml").write_text(CONFIG.replace("accuracy = 1", "accuracy = 0.5") + VOTERS)
    run(Settings.load("job.toml"))
    before = rows()
    names = {"account": "login", "other": "login"}
    rename("run", "topic", names)
    for old, now in zip(before, rows(), strict=True):
        assert now["topic"] == names.get(old["topic"], old["topic"])
        assert now["votes"] == [{**one, "topic": names.get(one["topic"], one["topic"])} for one in old["votes"]]
        same = now["votes"].count({"topic": now["topic"], "tags": now["tags"]})
        assert now["agreement"] == round(same / len(now["votes"]), 4)
        most = max(map(now["votes"].count, now["votes"]))
        is_tie = sum(now["votes"].count(one) == same for one in now["votes"]) > same
        assert now["needs_review"] is (is_tie or same < most or now["agreement"] < 0.6)
    assert [row["agreement"] for row in before] != [row["agreement"] for row in rows()], "a merge makes votes agree"
    assert verify("run").ok
    assert replay("job.toml").labelled == 12
    assert set(labels().values()) <= {"login", "billing"}
    assert run_again() == 0
    assert verify("run").ok


def test_gold_in_the_run_is_not_asked_again() -> None:
    gold = [{"id": f"g{at}", "text": f"gold {at}", "topic": topic, "right": topic} for at, topic in enumerate(TOPICS)]
    Path("gold.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in gold))
    Path("job.toml").write_text(CONFIG + '\n[quality]\ngold = "gold.jsonl"\nevery = 3\n')
    before = run(Settings.load("job.toml")).gold
    assert before is not None
    assert before["n"] == before["right"] == 4
    found = rename("run", "topic", {"account": "login"})
    assert found.notes[-1] == "quality.gold = 'gold.jsonl' keeps its names: rename them there too"
    Path("gold.jsonl").write_text(Path("gold.jsonl").read_text().replace('"account"', '"login"'))
    assert run(Settings.load("job.toml")).gold == before


def test_what_comes_back_has_the_new_name() -> None:
    run(Settings.load("job.toml"))
    write_input(9)
    assert run_again() == 0
    assert "r9" not in labels()
    rename("run", "topic", {"account": "login"})
    write_input(12)
    assert run_again() == 0
    assert labels() == renamed_topics(account="login")


def test_corrections_have_the_new_name_too() -> None:
    run(Settings.load("job.toml"))
    label = {"tags": ["account", "billing"], "topic": "billing"}
    with open_reviews(Path("run")) as reviews:
        about = label_digest(label)
        reviews.add_answers([Answer("r0", "ann", about, label, {"topic": "account"}, record=content_of("r0"))])
    rename("run", "topic", {"account": "login"})
    with open_reviews(Path("run")) as reviews:
        (answer,) = reviews.active_answers()
        assert answer.new == {"topic": "login"}
        reviews.add_answers([Answer("r1", "ann", about, label, {"topic": "other"}, record=content_of("r1"))])
    assert labels()["r0"] == "login"
    assert run_again() == 0
    assert labels() == {**renamed_topics(account="login"), "r0": "login", "r1": "other"}
    assert verify("run").ok


def content_of(key: str) -> int:
    with closing(sqlite3.connect("run/ledger.db")) as ledger:
        (digest,) = ledger.execute("SELECT digest FROM outcomes WHERE key = ?", [key]).fetchone()
        return int(digest)


# what the user has written


def test_a_file_of_labels_and_of_examples_are_edited() -> None:
    table = Path("topics.csv")
    table.write_text(
        'label;description\r\nbilling;"an; invoice"\r\n"account";x\r\nlogin;  y \r\nother;\r\n', newline=""
    )
    Path("shown.jsonl").write_text('{"text": "a", "label": {"topic": "account", "tags": []}}\n')
    head, _, rest = CONFIG.partition("[task.labels.topic]")
    config = head + 'topic = "topics.csv"\n' + "[model]" + rest.partition("[model]")[2]
    Path("job.toml").write_text(
        config.replace('prompt = "{{ text }}"', 'prompt = "{{ text }}"\nexamples_file = "shown.jsonl"')
    )
    written = Path("job.toml").read_text()
    run(Settings.load("job.toml"))
    assert set(rename("run", "topic", {"account": "konto"}).files) == {"topics.csv", "shown.jsonl"}
    assert table.read_bytes().decode() == table_of("konto;x\r\n")
    assert Path("job.toml").read_text() == written
    rename("run", "topic", {"konto": "login"})
    assert table.read_bytes().decode() == table_of("")
    assert json.loads(Path("shown.jsonl").read_text())["label"]["topic"] == "login"
    assert run_again() == 0


def table_of(row: str) -> str:
    return f'label;description\r\nbilling;"an; invoice"\r\n{row}login;  y \r\nother;\r\n'


def test_names_that_the_user_has_put_into_the_config_are_taken_over() -> None:
    run(Settings.load("job.toml"))
    edited = CONFIG.replace('account = "cannot', 'konto = "cannot').replace(
        '{ topic = "account", ', '{ topic = "konto", '
    )
    Path("job.toml").write_text(edited)
    with pytest.raises(SetupError, match="made with other settings"):
        run_again()
    assert rename("job.toml", "topic", {"account": "konto"}).files == ()
    assert labels() == renamed_topics(account="konto")
    assert Path("job.toml").read_text() == edited
    assert run_again() == 0


def test_another_change_of_the_config_is_still_asked_about() -> None:
    run(Settings.load("job.toml"))
    Path("job.toml").write_text(CONFIG.replace("# for the model", "").replace("not a login", "never a login"))
    rename("job.toml", "topic", {"account": "login"})
    with pytest.raises(SetupError, match="system") as caught:
        run_again()
    assert "tools" not in str(caught.value)


def test_settings_of_a_program_are_renamed_by_the_program() -> None:
    def settings(*names: str) -> Settings:
        return Settings(
            input={"path": "in.jsonl", "key": "id"},
            task={"prompt": "{{ text }}", "labels": {"stars": [1, 2, 3], "topic": list(names)}},
            model={"name": "m", "base_url": "rehearsal"},
            rehearsal={"gold": {"topic": "right"}, "accuracy": 1, "latency_ms": 0},
            output={"dir": "run", "formats": ["csv", "jsonl"]},
        )

    run(settings(*TOPICS))
    found = rename(settings(*TOPICS), "topic", {"account": "login"})
    assert found.notes == ("the settings come from a program: put the new names into it",)
    rename(settings("billing", "login", "other"), "stars", {"3": "2"})
    after = settings("billing", "login", "other")
    after.task.labels["stars"].remove(3)  # type: ignore[index, union-attr]
    assert run(after).session_records == 0
    assert labels() == renamed_topics(account="login")


def test_the_same_command_again_says_that_it_is_done() -> None:
    run(Settings.load("job.toml"))
    first, again = (rename("run", "topic", {"account": "login"}) for _ in range(2))
    assert (first.records, again.records, again.notes[-1]) == (3, 3, "these labels were renamed before")


# what it refuses


@pytest.mark.parametrize(
    ("column", "pairs", "words"),
    [
        ("topics", ["a=b"], "'topics' is no field of task.labels; there are: tags, topic"),
        (
            "topic",
            ["acount=login"],
            "topic has no label 'acount', in the config or in the run; it has billing, account",
        ),
        ("topic", ["account=account"], "a label can have only one new name"),
        ("topic", ["account=a", "account=b"], "a label can have only one new name"),
        ("topic", ["account= "], "the new name is empty"),
        ("topic", ["account= b"], "the new name begins or ends with white space"),
        ("topic", ["account"], "expected the old and the new name, like account=login"),
    ],
)
def test_names_that_cannot_be_given_change_nothing(column: str, pairs: list[str], words: str) -> None:
    run(Settings.load("job.toml"))
    before = contents()
    told = command("rename", "run", column, *pairs)
    assert (told.exit_code, words in told.output) == (2, True), told.output
    assert contents() == before


def contents() -> dict[str, bytes]:
    kept = [*Path("run").glob("labels.*"), Path("run/manifest.json"), Path("run/summary.json"), Path("job.toml")]
    return {str(path): path.read_bytes() for path in kept}


def test_a_dry_run_counts_and_changes_nothing() -> None:
    run(Settings.load("job.toml"))
    before = contents()
    told = command("rename", "job.toml", "topic", "account=login", "other=rest", "--dry-run", "--json")
    assert json.loads(told.stdout) == {
        "run_dir": "run",
        "column": "topic",
        "pairs": [["account", "login"], ["other", "rest"]],
        "records": 6,
        "files": ["job.toml"],
        "notes": ["task.system still says 'account'"],
        "dry_run": True,
    }
    assert contents() == before


def test_a_run_at_work_is_left_alone() -> None:
    run(Settings.load("job.toml"))
    with RunDir(Path("run")).open_for_writing(), pytest.raises(RunInUseError, match="is at work in this run folder"):
        rename("job.toml", "topic", {"account": "login"})


def test_a_label_with_an_equals_sign() -> None:
    Path("job.toml").write_text(
        CONFIG.replace('account = "cannot', '"a=b" = "cannot').replace('"account", tags', '"a=b", tags')
    )
    run(Settings.load("job.toml"))
    told = command("rename", "run", "topic", "a=b=c=d")
    assert "a=b -> c=d" in told.stdout, told.output


# kills


def test_a_kill_at_any_moment_is_made_good_by_the_same_command() -> None:
    """Each child kills itself at the next moment at which a file is made lasting, or put in the place of another."""
    run(Settings.load("job.toml"))
    names = {"account": "login", "login": "account"}
    shutil.copytree("run", "kept")
    rename("run", "topic", names)
    whole = {path: data for path, data in contents().items() if not path.endswith(("manifest.json", ".parquet"))}
    refused = 0
    for moment in itertools.count(1, 2):
        shutil.rmtree("run")
        shutil.copytree("kept", "run")
        Path("job.toml").write_text(CONFIG)
        if not killed_at(moment, names):
            break
        renames = json.loads(Path("run/manifest.json").read_text()).get("renames", [{"done": None}])
        if renames[0]["done"] is False:
            refused += 1
            with pytest.raises(SetupError, match="labelpipe rename run topic account=login login=account"):
                run_again()
        if not renames[0]["done"]:
            rename("run", "topic", names)
        found = contents()
        assert {path: found[path] for path in whole} == whole, f"moment {moment}"
    assert refused > 4, f"{refused} of {moment} kills came in between"
    assert verify("run").ok
    assert run_again() == 0


def killed_at(moment: int, names: Mapping[str, str]) -> bool:
    """Whether a child that renames was killed at this moment; False where it came to its end before."""
    child = os.fork()
    if child == 0:
        try:
            die_at(moment)
            rename("run", "topic", names)
            os._exit(0)
        finally:
            os._exit(1)
    ending = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert ending in (0, -signal.SIGKILL)
    return ending != 0


def die_at(moment: int) -> None:
    """End this process before the call of this number that makes a file lasting, or puts it in the place of another."""
    left = itertools.count(moment - 1, -1)

    def counted(call: Callable[..., Any], *args: Any, **more: Any) -> Any:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args, **more)

    for name in ("fsync", "replace", "rename"):
        setattr(os, name, partial(counted, getattr(os, name)))
