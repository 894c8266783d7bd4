"""Plain callbacks that never return: the run ends all the same, and names every record whose callback gave nothing."""

from __future__ import annotations

from collections.abc import Callable

from end_to_end.stage import Endpoint, Project, wait_until

#: Hangs for the records that `hangs` names, until that file is gone; the test says how many threads there may be.
CALLBACK = """
import pathlib
import threading

from pipeline.task import callback_threads

callback_threads.MAX_THREADS, callback_threads.MAX_HUNG = {most}, {most_lost}
HANGS = pathlib.Path("hangs")


def note(name, record):
    with open(name, "a") as file:
        file.write(record.key + "\\n")


def save(label, record):
    note("begun", record)
    if HANGS.exists() and record.key in HANGS.read_text().split():
        threading.Event().wait()
    note("seen", record)
    return {{"saved": True}}
"""


NOTHING = "the callback did not return within 2 s (simulated)"


def hanging(user: Project, *keys: str, most: int = 64, most_lost: int = 1_000) -> Project:
    (user.folder / "saving.py").write_text(CALLBACK.format(most=most, most_lost=most_lost), encoding="utf-8")
    (user.folder / "hangs").write_text(" ".join(keys), encoding="utf-8")
    user.configure(task={"callback": "saving:save", "callback_timeout_s": 2})
    return user


def noted(user: Project, name: str) -> list[str]:
    """The records whose callback has `begun`, or was `seen` to do its work."""
    file = user.folder / name
    return sorted(file.read_text(encoding="utf-8").split()) if file.exists() else []


def test_some_hang_and_the_others_are_labelled(make: Callable[..., Project], endpoint: Endpoint) -> None:
    user = hanging(make(), "r0003", "r0008", "r0015")
    summary = user.run(code=1)
    assert (summary["labelled"], summary["rejected"]) == (17, 3)
    told = {row["id"]: (row["code"], row["message"]) for row in user.failed()}
    assert told == dict.fromkeys(("r0003", "r0008", "r0015"), ("callback_error", NOTHING))
    (user.folder / "hangs").unlink()
    assert user.do("retry", "job.toml", "--json").expect(0).json["labelled"] == 20
    assert user.failed() == []
    assert noted(user, "seen") == [f"r{number:04}" for number in range(1, 21)], "each once"
    user.verify()


def test_all_hang_beyond_the_last_thread(make: Callable[..., Project], endpoint: Endpoint) -> None:
    """More than may hang: the rest is refused, not waited for, and never begins."""
    keys = [f"r{number:04}" for number in range(1, 41)]
    user = hanging(make(count=40), *keys, most=4, most_lost=6)
    summary = user.run(code=1)
    assert summary["rejected"] == 40
    assert noted(user, "seen") == []
    assert sorted(row["id"] for row in user.failed()) == keys
    assert {row["code"] for row in user.failed()} == {"callback_error"}
    errors = [row["message"] for row in user.failed()]
    nothing = errors.count(NOTHING)
    assert 6 <= nothing <= 6 + 4, "those that hung, and those that were at work when that was too many"
    refused = [error for error in errors if "calls of plain functions hang, and no other call starts" in error]
    assert len(refused) == 40 - nothing
    assert all("`labelpipe retry` to ask again" in error for error in refused)
    user.verify()
    calls = endpoint.calls()
    (user.folder / "hangs").unlink()
    again = user.do("replay", "job.toml", "--json").expect(0).json
    assert (again["labelled"], endpoint.calls()) == (40, calls)
    assert noted(user, "seen") == keys, "each once"
    user.verify()


def test_a_drain_does_not_wait_for_what_hangs(make: Callable[..., Project], endpoint: Endpoint) -> None:
    """Its answer is in the ledger: the next run hands it to the callback again, and nothing is asked twice."""
    user = hanging(make(count=3), "r0001", "r0002", "r0003")
    user.configure(task={"callback_timeout_s": 600}, limits={"grace_s": 0.5})
    process = user.start("run", "job.toml", "--json")
    wait_until(lambda: len(noted(user, "begun")) == 3)
    user.do("drain", "run").expect(0)
    assert process.wait().expect(3).json["pending"] == 3
    (user.folder / "hangs").unlink()
    assert user.run()["labelled"] == 3
    assert noted(user, "seen") == ["r0001", "r0002", "r0003"]
    assert endpoint.calls() == 3
