"""The same folder again: started over, asked otherwise, with an input that has grown or was edited."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from end_to_end.stage import Endpoint, Endpoints, Project, project, read_csv, rows


def test_fresh_moves_the_old_run_aside(make: Callable[..., Project], endpoint: Endpoint) -> None:
    user = make(count=10)
    user.run()
    old = (user.run_dir / "labels.csv").read_bytes()
    asked = user.do("run", "job.toml", "--fresh").expect(2)
    assert "--yes" in asked.err, "nobody can be asked without a terminal"
    assert set(endpoint.asked().values()) == {1}

    assert user.do("run", "job.toml", "--fresh", "--yes", "--json").expect(0).json["calls"] == 10
    assert set(endpoint.asked().values()) == {2}
    (aside,) = user.folder.glob("run.*")
    assert (aside / "labels.csv").read_bytes() == old
    assert user.verify()["labelled"] == user.verify(aside.name)["labelled"] == 10


def test_a_changed_task_is_refused_kept_or_labelled_again(make: Callable[..., Project], endpoint: Endpoint) -> None:
    user = make(count=12)
    user.run()
    user.configure(task={"prompt": "{{ id }} What is it? {{ text }}"}, limits={"concurrency": 4})
    refused = user.do("run", "job.toml", "--json").expect(2)
    assert refused.out == ""
    assert "{{ id }} {{ text }}" in refused.err, "the difference is shown"
    assert "{{ id }} What is it? {{ text }}" in refused.err
    assert "affects 12 of 12 records" in refused.err
    assert "(the answers to 12 records are paid for again, about $0.00" in refused.err
    assert "labelpipe replay" not in refused.err, "other questions have other answers"
    assert "concurrency" not in refused.err, "what decides no label is no difference"
    assert endpoint.calls() == 12, "nothing was spent"

    assert user.run("--keep")["calls"] == 0
    assert user.run()["calls"] == 0, "what was kept once is not asked about again"
    user.configure(task={"prompt": "{{ id }} Which code? {{ text }}"})
    again = user.run("--relabel")
    assert (again["calls"], again["labelled"]) == (12, 12)
    assert {row["id"]: row["label"] for row in user.labels()} == {
        key: labels[-1]["label"] for key, labels in endpoint.given().items() if labels[-1]
    }
    user.verify()


def test_a_grown_input_is_only_new_records(make: Callable[..., Project], endpoint: Endpoint) -> None:
    """One comes in between, five at the end: rows in the input's order follow the input as it is now."""
    user = make(count=20, output={"order": "input"})
    user.run()
    grown = rows(25)
    grown.insert(3, {"id": "between", "text": "new"})
    user.give(grown)
    summary = user.run()
    assert (summary["calls"], summary["labelled"]) == (6, 26)
    assert set(endpoint.asked().values()) == {1}
    assert [row["id"] for row in user.labels()] == [row["id"] for row in grown]
    assert user.verify()["orphans"] == 0


def test_an_edited_record_is_noticed(make: Callable[..., Project], endpoint: Endpoint) -> None:
    user = make(count=10)
    user.run()
    edited = rows(10)
    edited[6]["text"] = "now it says something else"
    user.give(edited)
    refused = user.do("run", "job.toml").expect(2)
    assert "r0007" in refused.err
    assert "affects 1 of 10 records" in refused.err
    assert endpoint.calls() == 10
    assert user.run("--relabel")["calls"] == 1
    assert {key for key, calls in endpoint.asked().items() if calls == 2} == {"r0007"}
    assert {row["id"]: row["text"] for row in user.labels()}["r0007"] == "now it says something else"


def test_a_repeated_key_is_rejected_with_its_place(make: Callable[..., Project], endpoint: Endpoint) -> None:
    user = make()
    twice = [*rows(4), {"id": "r0002", "text": "another text"}, {"id": "", "text": "no name"}]
    user.give(twice)
    assert user.run(code=1)["problems"] == {"duplicate_key": 1, "no_key": 1}
    places = {(row["code"], row["source"], row["line"]) for row in user.failed()}
    assert places == {("duplicate_key", "in.jsonl", "5"), ("no_key", "in.jsonl", "6")}
    assert endpoint.asked() == dict.fromkeys(["r0001", "r0002", "r0003", "r0004"], 1)
    user.verify()
    # What repeats a key is not what the first of its name has become.
    user.give([*twice, *rows(1, first=5)])
    assert user.run(code=1)["labelled"] == 5


def test_stdin_is_an_input_and_resumes(make: Callable[..., Project], endpoint: Endpoint) -> None:
    user = make(count=30)
    lines = (user.folder / "in.jsonl").read_text(encoding="utf-8")
    first = "".join(lines.splitlines(keepends=True)[:12])
    (user.folder / "in.jsonl").unlink()
    args = ["run", "job.toml", "--input", "-", "--json"]
    assert user.do(*args, given=first).expect(0).json["labelled"] == 12
    again = user.do(*args, given=lines).expect(0).json
    assert (again["calls"], again["labelled"]) == (18, 30)
    assert set(endpoint.asked().values()) == {1}
    assert {row["id"] for row in user.labels()} == {row["id"] for row in rows(30)}
    assert user.verify()["labelled"] == 30


def test_identical_requests_are_asked_once_unless_told_otherwise(tmp_path: Path, endpoints: Endpoints) -> None:
    started = []
    for dedupe in (True, False):
        endpoint = endpoints.open()
        task = {"prompt": "{{ text }}", "dedupe": dedupe}
        user = project(tmp_path / str(dedupe), endpoint.base_url, task=task, input={"key": None})
        user.give({"id": number, "text": f"same-{number % 3} words"} for number in range(30))
        started.append((user, endpoint, user.start("run", "job.toml", "--json")))
    for (user, endpoint, process), calls in zip(started, (3, 30), strict=True):
        assert process.wait().expect(0).json["labelled"] == 30
        assert endpoint.calls() == calls
        given = {key: labels[0]["label"] for key, labels in endpoint.given().items() if labels[0]}
        assert [row["label"] for row in sorted(user.labels(), key=lambda row: int(row["id"]))] == [
            given[f"same-{number % 3}"] for number in range(30)
        ]
        assert len(read_csv(user.run_dir / "labels.csv")) == 30
        endpoints.close(endpoint)


def test_records_that_a_validator_looks_at_share_no_answer(make: Callable[..., Project], endpoint: Endpoint) -> None:
    """It may look at what no request says: the first record's answer was the last word on all that were asked alike."""
    user = make(
        task={"prompt": "{{ text }}", "dedupe": True, "validators": [{"expression": "record.id < 5"}]},
        input={"key": None},
        limits={"max_repairs": 0},
    )
    user.give({"id": number, "text": "same words"} for number in range(10))
    summary = user.run(code=1)
    assert (summary["labelled"], summary["rejected"]) == (5, 5)
    assert endpoint.calls() == 10
    assert sorted(row["id"] for row in user.labels()) == list("01234")
