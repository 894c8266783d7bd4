"""Orders through a real folder, a config file that real editors write, and what may change in mid-run."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.codec import flatten
from pipeline.control import (
    LIVE_TABLES,
    VERBS,
    ConfigWatch,
    Inbox,
    LiveSettings,
    Order,
    OrderReply,
    SentOrder,
    SettingChange,
    applied_line,
    await_answer,
    refused_line,
    send,
    sort_changes,
)
from pipeline.errors import SetupError
from pipeline.settings import Settings, keys


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "manifest.json").write_text("{}")
    return folder


def orders_file(run_dir: Path) -> Path:
    return run_dir / "control.jsonl"


def answer_of(ticket: SentOrder) -> OrderReply | None:
    """The answer if it is there; no waiting."""
    return await_answer(ticket, 0, sleep=lambda _: pytest.fail("it slept"))


# -- orders --------------------------------------------------------------------------------------------------------


def test_an_order_and_its_answer(run_dir: Path) -> None:
    inbox = Inbox(run_dir)
    ticket = send(run_dir, "set", "limits.concurrency", "16")
    (order,) = inbox.read_new()
    assert order == Order(ticket.id, "set", "limits.concurrency", "16")
    assert inbox.read_new() == []
    assert answer_of(ticket) is None
    inbox.answer(order, True, "limits.concurrency 64 -> 16")
    assert answer_of(ticket) == OrderReply(True, "limits.concurrency 64 -> 16")


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "set"])
def test_the_plain_orders(run_dir: Path, verb: str) -> None:
    inbox = Inbox(run_dir)
    ticket = send(run_dir, verb)
    assert inbox.read_new() == [Order(ticket.id, verb)]


def test_orders_come_in_their_order_and_answers_find_their_sender(run_dir: Path) -> None:
    inbox = Inbox(run_dir)
    tickets = [send(run_dir, verb) for verb in ("pause", "resume", "drain")]
    orders = inbox.read_new()
    assert [order.id for order in orders] == [ticket.id for ticket in tickets]
    for order in reversed(orders):
        inbox.answer(order, order.verb != "drain", order.verb)
    assert [answer_of(ticket) for ticket in tickets] == [
        OrderReply(True, "pause"),
        OrderReply(True, "resume"),
        OrderReply(False, "drain"),
    ]


def test_orders_from_before_the_session_are_not_carried_out(run_dir: Path) -> None:
    send(run_dir, "drain")
    inbox = Inbox(run_dir)
    assert inbox.read_new() == []
    ticket = send(run_dir, "pause")
    assert [order.id for order in inbox.read_new()] == [ticket.id]


def test_a_line_that_is_still_being_written_waits_for_its_end(run_dir: Path) -> None:
    inbox = Inbox(run_dir)
    line = b'{"id": "a", "verb": "pause"}\n'
    for at in range(len(line)):
        with orders_file(run_dir).open("ab") as file:
            file.write(line[at : at + 1])
        orders = inbox.read_new()
        assert orders == ([Order("a", "pause")] if at == len(line) - 1 else [])


def test_a_line_that_was_never_finished_swallows_no_other(run_dir: Path) -> None:
    """A sender that was killed in mid-write left half a line; the next order was glued to it."""
    orders_file(run_dir).write_bytes(b'{"id": "old", "ve')
    before, after = Inbox(run_dir), Inbox(run_dir)
    ticket = send(run_dir, "pause")
    assert [order.id for order in before.read_new()] == [ticket.id]
    with orders_file(run_dir).open("ab") as file:
        file.write(b'{"id": "torn"')
    second = send(run_dir, "resume")
    assert [order.id for order in after.read_new()] == [ticket.id, second.id]


@pytest.mark.parametrize("junk", [b"\n", b"no json\n", b'["a"]\n', b"\xff\xfe\n", b"null\n", b"x" * 200_000 + b"\n"])
def test_what_is_no_order_is_passed_over(run_dir: Path, junk: bytes) -> None:
    inbox = Inbox(run_dir)
    with orders_file(run_dir).open("ab") as file:
        file.write(junk)
    ticket = send(run_dir, "pause")
    assert [order.id for order in inbox.read_new()] == [ticket.id]
    assert inbox.read_new() == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"verb": "stop"}, "unknown order 'stop'; known are pause, resume, drain, set"),
        ({}, "unknown order 'None'; known are pause, resume, drain, set"),
        ({"verb": "set"}, "set needs a key and a value, like limits.concurrency=16"),
        ({"verb": "pause", "key": "limits"}, "pause takes no key; to change a setting: set limits=..."),
    ],
)
def test_an_order_that_makes_no_sense_is_told(run_dir: Path, line: dict[str, Any], told: str) -> None:
    """Another version of labelpipe may send what this one does not know."""
    inbox = Inbox(run_dir)
    orders_file(run_dir).write_text(json.dumps({"id": "a", **line}) + "\n")
    assert inbox.read_new() == []
    assert answer_of(SentOrder("a", run_dir, "stop", 0)) == OrderReply(False, told)


def test_many_orders_at_once_are_all_read(run_dir: Path) -> None:
    inbox = Inbox(run_dir)
    tickets = [send(run_dir, "set", "limits.concurrency", "9" * (number * 37 % 3_000)) for number in range(200)]
    assert [order.id for order in inbox.read_new()] == [ticket.id for ticket in tickets]


def test_two_terminals_do_not_mix_their_lines(run_dir: Path) -> None:
    inbox = Inbox(run_dir)
    sent: list[str] = []
    lock = threading.Lock()

    def sender() -> None:
        for _ in range(50):
            ticket = send(run_dir, "set", "limits.concurrency", "x" * 500)
            with lock:
                sent.append(ticket.id)

    threads = [threading.Thread(target=sender) for _ in range(4)]
    for thread in threads:
        thread.start()
    got: list[Order] = []
    while any(thread.is_alive() for thread in threads):
        got += inbox.read_new()
    for thread in threads:
        thread.join()
    got += inbox.read_new()
    assert sorted(order.id for order in got) == sorted(sent)


def test_a_file_that_was_replaced_is_read_from_its_beginning(run_dir: Path) -> None:
    send(run_dir, "drain")
    send(run_dir, "drain")
    inbox = Inbox(run_dir)
    orders_file(run_dir).unlink()
    assert inbox.read_new() == []
    ticket = send(run_dir, "pause")
    assert [order.id for order in inbox.read_new()] == [ticket.id]


@pytest.mark.parametrize(
    ("verb", "key", "words"),
    [
        ("stop", None, "unknown order 'stop'"),
        ("set", None, "needs a key"),
        ("set", "", "needs"),
        ("drain", "a", "no key"),
    ],
)
def test_a_sender_that_makes_no_sense_is_told_at_once(run_dir: Path, verb: str, key: str | None, words: str) -> None:
    with pytest.raises(SetupError, match=words):
        send(run_dir, verb, key, "1")
    assert not orders_file(run_dir).exists()


def test_a_folder_without_a_run_is_told(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="there is no run here"):
        send(tmp_path / "nowhere", "pause")
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_may_not_be_written_is_told(run_dir: Path) -> None:
    orders_file(run_dir).mkdir()
    with pytest.raises(SetupError, match=r"control\.jsonl: the order cannot be written: .*directory"):
        send(run_dir, "pause")


def test_an_answer_that_cannot_be_written_is_logged_and_no_more(
    run_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (run_dir / "control.answers.jsonl").mkdir()
    inbox = Inbox(run_dir)
    with caplog.at_level(logging.INFO, logger="labelpipe"):
        inbox.answer(Order("a", "pause"), True, "paused")
    assert [record.getMessage() for record in caplog.records] == ["order cannot be answered", "order"]
    assert caplog.records[1].__dict__["facts"] == {"verb": "pause", "key": None, "ok": True, "text": "paused"}


def test_orders_that_cannot_be_read_do_not_stop_the_run(run_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    inbox = Inbox(run_dir)
    orders_file(run_dir).mkdir()
    assert inbox.read_new() == []
    assert [record.getMessage() for record in caplog.records] == ["orders cannot be read"]


def test_an_answer_that_comes_late_is_waited_for(run_dir: Path) -> None:
    inbox, now, naps = Inbox(run_dir), 0.0, []
    ticket = send(run_dir, "pause")

    def nap(seconds: float) -> None:
        nonlocal now
        now += seconds
        naps.append(seconds)
        if now > 1:
            for order in inbox.read_new():
                inbox.answer(order, True, "paused")

    assert await_answer(ticket, 5, sleep=nap, clock=lambda: now) == OrderReply(True, "paused")
    assert 1 <= sum(naps) < 1.5


def test_no_answer_is_none_after_the_time(run_dir: Path) -> None:
    ticket, now = send(run_dir, "pause"), 0.0

    def nap(seconds: float) -> None:
        nonlocal now
        now += seconds

    assert await_answer(ticket, 5, sleep=nap, clock=lambda: now) is None
    assert 5 <= now < 5.2


def test_another_process_sends_and_is_answered(run_dir: Path) -> None:
    inbox = Inbox(run_dir)
    code = (
        "import sys, pathlib; from pipeline.control import send, await_answer\n"
        "reply = await_answer(send(pathlib.Path(sys.argv[1]), 'pause'), 30)\n"
        "print(reply.ok, reply.text)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(run_dir)], stdout=subprocess.PIPE, text=True) as sender:
        until = time.monotonic() + 30
        while not (orders := inbox.read_new()) and time.monotonic() < until:
            time.sleep(0.01)
        inbox.answer(orders[0], True, "paused: 3 calls end")
        assert sender.communicate()[0] == "True paused: 3 calls end\n"


# -- the config file -----------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(tmp_path: Path, clock: Clock) -> ConfigWatch:
    """A watch on a config that was read a while ago."""
    path = tmp_path / "a.toml"
    path.write_text("[limits]\nconcurrency = 64\n")
    watch = ConfigWatch(path, wall=clock)
    clock.ahead_s += 1
    assert watch.changed(), "the first look says True: it may have been edited since it was read"
    assert not watch.changed()
    return watch


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def by_rename(path: Path, text: str) -> None:
    part = path.with_name("4913~")
    part.write_text(text)
    part.replace(path)


def by_backup(path: Path, text: str) -> None:
    """As vim does with `backup`: the old file is moved away first."""
    path.replace(path.with_name("a.toml~"))
    path.write_text(text)


@pytest.mark.parametrize("write", [in_place, by_rename, by_backup])
def test_an_edit_is_seen_once_however_it_is_made(
    watch: ConfigWatch, clock: Clock, write: Callable[[Path, str], None]
) -> None:
    for text in ("[limits]\nconcurrency = 16\n", "[limits]\nconcurrency = 32\n"):
        write(watch.path, text)
        clock.ahead_s += 1
        assert watch.changed()
        assert not watch.changed()


def test_a_writer_that_is_still_at_it_is_waited_for(watch: ConfigWatch, clock: Clock) -> None:
    """Half a config may be a valid one: without [limits] a budget would be gone for a second."""
    clock.ahead_s = 0
    for text in ("[task]\n", "[task]\nname = 'a'\n", "[task]\nname = 'a'\n[limits]\n"):
        watch.path.write_text(text)
        assert not watch.changed()
    clock.ahead_s += 0.3
    assert watch.changed()
    assert not watch.changed()


def test_a_file_whose_clock_is_ahead_is_taken_when_it_rests(watch: ConfigWatch, clock: Clock) -> None:
    """A file server's clock is not ours."""
    watch.path.write_text("[limits]\nconcurrency = 16\n")
    later = time.time() + 3_600
    os.utime(watch.path, (later, later))
    clock.ahead_s = 0
    assert not watch.changed()
    assert watch.changed()
    assert not watch.changed()


def test_a_file_that_is_missing_or_empty_is_no_change(watch: ConfigWatch, clock: Clock) -> None:
    text = watch.path.read_text()
    watch.path.unlink()
    assert not watch.changed()
    watch.path.touch()
    clock.ahead_s += 1
    assert not watch.changed()
    watch.path.write_text(text)
    clock.ahead_s += 1
    assert watch.changed()


def test_bad_content_is_told_once(watch: ConfigWatch, clock: Clock) -> None:
    watch.path.write_text("[limits\n")
    assert watch.is_news()
    assert not watch.is_news()
    os.utime(watch.path)  # saved again as it is
    clock.ahead_s += 1
    assert watch.changed()
    assert not watch.is_news()
    watch.path.write_text("[limits[\n")
    assert watch.is_news()


def test_the_same_mistake_made_again_later_is_told_again(watch: ConfigWatch) -> None:
    watch.path.write_text("[limits\n")
    assert watch.is_news()
    watch.is_good()
    assert watch.is_news()


def test_bad_content_that_is_gone_is_not_told(watch: ConfigWatch) -> None:
    watch.path.unlink()
    assert not watch.is_news()


def test_an_edit_takes_hold_within_two_seconds(tmp_path: Path) -> None:
    """With real clocks, and a look each second as the run makes them, at the worst moment: just after the edit."""
    path = tmp_path / "a.toml"
    path.write_text("a = 1\n")
    watch = ConfigWatch(path, wall=time.time)
    edited_at = time.time()
    looks = [edited_at + 0.01, edited_at + 1.01]
    seen = [ConfigWatch.changed(_at(watch, moment)) for moment in looks]
    assert seen == [False, True]


def _at(watch: ConfigWatch, moment: float) -> ConfigWatch:
    watch._wall = lambda: moment
    return watch


# -- what may change -----------------------------------------------------------------------------------------------


def test_changes_are_sorted_by_whether_they_may_be_made_now() -> None:
    old = {"limits.concurrency": 64, "limits.budget_usd": None, "task.prompt": "a", "model.name": "m", "input.limit": 5}
    new = {**old, "limits.concurrency": 16, "limits.budget_usd": 2.5, "task.prompt": "b", "model.seed": 1}
    del new["input.limit"]
    change = sort_changes(old, new)
    assert change.applied == [("limits.budget_usd", None, 2.5), ("limits.concurrency", 64, 16)]
    assert change.refused == [("input.limit", 5, None), ("model.seed", None, 1), ("task.prompt", "a", "b")]


def test_the_lines_say_old_and_new() -> None:
    change = sort_changes(
        {"limits.concurrency": 64, "limits.stop_at": None, "task.prompt": "a"},
        {"limits.concurrency": 16, "limits.stop_at": "07:00", "task.prompt": "b"},
    )
    assert change.lines("config/a.toml") == [
        "limits.concurrency 64 -> 16 (config/a.toml)",
        'limits.stop_at none -> "07:00" (config/a.toml)',
        "task.prompt cannot change during a run; it takes effect with the next run",
    ]
    assert change.lines("set", {"limits.stop_at": "the run ends at 2026-11-23 07:00", "task.prompt": "x"})[1] == (
        'limits.stop_at none -> "07:00" (set); the run ends at 2026-11-23 07:00'
    )
    assert refused_line("task.prompt", lasting=False) == "task.prompt cannot change during a run"


@pytest.mark.parametrize(
    ("shift", "line"),
    [
        (
            SettingChange("limits.run_between", None, ["22:00", "07:00"]),
            'limits.run_between none -> ["22:00","07:00"] (set)',
        ),
        (SettingChange("limits.budget_usd", 2.5, None), "limits.budget_usd 2.5 -> none (set)"),
        (SettingChange("notify.url", "https://x/secret", "https://y/secret"), "notify.url is another one (set)"),
        (SettingChange("notify.command", "a secret", None), "notify.command was unset (set)"),
    ],
)
def test_a_line_shows_values_but_no_secrets(shift: SettingChange, line: str) -> None:
    assert applied_line(shift, "set") == line


def test_true_is_not_one() -> None:
    assert sort_changes({"limits.concurrency": 1}, {"limits.concurrency": True}).applied
    assert not sort_changes({"limits.grace_s": 60}, {"limits.grace_s": 60.0}).applied


def test_all_limits_and_notices_may_change_and_nothing_else() -> None:
    """docs/the-night-before.md says so."""
    names = [key.name for key in keys(Settings)]
    live = {name for name in names if name.split(".")[0] in ("limits", "notify")}
    assert {one.key for one in sort_changes({}, dict.fromkeys(names, 1)).applied} == live


_NAMES = st.text("abc", min_size=1, max_size=3)
_VALUES = st.integers() | st.text(max_size=5) | st.none() | st.lists(st.integers(), max_size=2)
_TABLES = _VALUES | st.dictionaries(_NAMES, _VALUES | st.dictionaries(_NAMES, _VALUES, max_size=3), max_size=3)


@given(st.dictionaries(_NAMES, _TABLES, max_size=3))
def test_flat_tables_hold_the_same(tables: dict[str, Any]) -> None:
    again: dict[str, Any] = {}
    for key, value in flatten(tables).items():
        *path, last = key.split(".")
        table = again
        for name in path:
            table = table.setdefault(name, {})
        table[last] = value
    assert again == tables


_FLAT = st.dictionaries(
    st.sampled_from(["limits.concurrency", "limits.grace_s", "notify.on", "task.prompt", "model.name"]),
    st.integers(0, 3),
)


@given(_FLAT, st.lists(_FLAT, max_size=5))
def test_what_is_in_force_follows_what_may_change(begin: dict[str, int], edits: list[dict[str, int]]) -> None:
    standing = LiveSettings(begin)
    for edit in edits:
        standing.take(edit)
        assert not standing.take(edit).applied, "taken"
        assert not standing.take(edit).refused, "told once"
        for key in {*begin, *edit}:
            wanted = edit if key.startswith(LIVE_TABLES) else begin
            assert standing.in_force.get(key) == wanted.get(key)


def test_a_refusal_is_told_once_until_it_is_taken_back() -> None:
    standing = LiveSettings({"limits.concurrency": 64, "task.prompt": "a"})
    refused = [
        [one.new for one in standing.take({"limits.concurrency": concurrency, "task.prompt": prompt}).refused]
        for concurrency, prompt in [(64, "b"), (16, "b"), (16, "c"), (16, "a"), (16, "c")]
    ]
    assert refused == [["b"], [], ["c"], [], ["c"]]


def test_what_is_only_looked_at_is_not_in_force() -> None:
    """A change is judged before it is taken: what cannot be done was never in force."""
    standing = LiveSettings({"notify.url": None})
    assert standing.applied_by({"notify.url": "ftp://x"}) == [("notify.url", None, "ftp://x")]
    assert standing.in_force == {"notify.url": None}
    assert standing.take({"notify.url": "https://x"}).applied == [("notify.url", None, "https://x")]
