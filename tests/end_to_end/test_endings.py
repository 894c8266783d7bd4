"""How a run can end: the exit codes, and what is left of it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

from end_to_end.stage import Endpoint, Endpoints, Project, Row, project, rows


def hanging(count: int, answered: int) -> list[Row]:
    """Records of which only the first `answered` are."""
    return [{**row, "text": "HANG"} if at >= answered else row for at, row in enumerate(rows(count))]


def test_what_keeps_a_run_from_starting(make: Callable[..., Project], endpoint: Endpoint) -> None:
    unknown = make("unknown")
    unknown.configure(limits={"concurency": 8, "max_attempts": "six"})
    missing = make("missing", input={"path": "nothing-*.jsonl"})
    template = make("template", task={"prompt": "{{ text"})
    column = make("column", output={"formats": ["excel"]})
    started = [(one, one.start("run", "job.toml", "--json")) for one in (unknown, missing, template, column)]
    ended = {one.folder.name: process.wait().expect(2) for one, process in started}
    assert "limits.concurency: unknown key; did you mean limits.concurrency?" in ended["unknown"].err
    assert 'limits.max_attempts: got "six"' in ended["unknown"].err, "all mistakes at once"
    assert "job.toml:" in ended["unknown"].err
    assert "nothing-*.jsonl" in ended["missing"].err
    assert "prompt" in ended["template"].err
    assert "excel" in ended["column"].err
    for one, _ in started:
        assert ended[one.folder.name].out == ""
        assert "Traceback" not in ended[one.folder.name].err
        assert not one.run_dir.exists(), "what cannot start leaves nothing behind"
    assert endpoint.calls() == 0


def test_a_wrong_key_costs_one_call_and_the_right_one_goes_on(tmp_path: Path, endpoints: Endpoints) -> None:
    right, wrong = "sk-right-0123456789abcdef", "sk-wrong-0123456789abcdef"
    endpoint = endpoints.open(api_key=right)
    user = project(tmp_path / "project", endpoint.base_url)
    stopped = user.do("run", "job.toml", "--json", env={"OPENAI_API_KEY": wrong}).expect(2)
    assert stopped.json["labelled"] == 0
    assert "401" in stopped.json["reason"]
    assert endpoint.totals()["calls"] == 1
    resumed = user.do("run", "job.toml", "--json", env={"OPENAI_API_KEY": right}).expect(0)
    assert resumed.json["labelled"] == 20
    for text in (stopped.out, stopped.err, resumed.out, resumed.err, *files(user.run_dir)):
        assert right not in text
        assert wrong not in text
    endpoints.close(endpoint)


def files(folder: Path) -> list[str]:
    """What is in every file, the database too."""
    return [path.read_bytes().decode("utf-8", "replace") for path in folder.rglob("*") if path.is_file()]


def test_the_key_may_come_from_a_dotenv_file_and_stays_there(tmp_path: Path, endpoints: Endpoints) -> None:
    key = "sk-secret-0123456789abcdef"
    endpoint = endpoints.open(api_key=key, faults={"500": 0.2, "bad_label": 0.2})
    user = project(tmp_path / "project", endpoint.base_url, model={"headers": {"X-Team": "hush-hush-4711"}})
    (user.folder / ".env").write_text(f"OPENAI_API_KEY={key}\n", encoding="utf-8")
    done = user.do("run", "job.toml").expect(0)
    shown = user.do("config", "show", "job.toml").expect(0)
    for text in (done.out, done.err, shown.out, shown.err, *files(user.run_dir)):
        assert key not in text
        assert "hush-hush-4711" not in text
    endpoints.close(endpoint)


def test_secrets_given_on_the_command_line_are_repeated_nowhere(tmp_path: Path, endpoints: Endpoints) -> None:
    """Neither where the run says how to go on, nor in what it keeps: the summary goes to a webhook too."""
    endpoint = endpoints.open(quota_after=5, latency_ms=20)
    user = project(tmp_path / "project", endpoint.base_url, notify={"command": "tee told.json"})
    sets = ["--set", "model.headers.X-Key=very-hush-4711", "--set", "notify.url=http://127.0.0.1:9/very-hush-4712"]
    table = ["--set", 'model.headers={X-Team="very-hush-4713"}', "--set", "limits.max_attempts=4"]
    for more in (sets, table):
        done = user.do("run", "job.toml", *more).expect(3)
        assert "limits.max_attempts=4  # *** is" in done.err or "'notify.url=***'  # *** is" in done.err
        kept = [*files(user.folder), done.out, done.err, user.do("status", "run").out]
        kept += [user.do("status", "run", "--json").out]
        assert [text for text in kept if "very-hush" in text] == []
    assert "very-hush" not in user.do("run", "job.toml", "--set", "notify.url=very-hush").err
    endpoints.close(endpoint)


def test_quota_ends_the_run_and_the_same_command_finishes_it(tmp_path: Path, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(quota_after=40, latency_ms=20)
    user = project(tmp_path / "project", endpoint.base_url, count=120)
    stopped = user.do("run", "job.toml").expect(3)
    assert "insufficient_quota" in stopped.err
    assert "top up or raise the quota, then: labelpipe run job.toml" in stopped.err
    totals = endpoint.totals()
    assert totals["answered"] == 40
    assert totals["failed"].keys() == {"quota"}
    assert totals["failed"]["quota"] <= 8, "at most what was in flight"
    assert {row["id"] for row in user.labels()} == set(endpoint.given()), "every answer is kept"
    user.verify()
    # Nothing is written off for a quota: the file of failures is empty.
    assert user.failed() == []

    endpoint = endpoints.again(endpoint)
    assert user.run()["labelled"] == 120
    assert {len(labels) for labels in endpoint.given().values()} == {1}, "none of the 40 was asked again"
    user.verify()
    endpoints.close(endpoint)


def test_not_one_label_ends_the_run_and_names_the_key(tmp_path: Path, endpoints: Endpoints) -> None:
    """All records were asked three times each and rejected, and it said Done."""
    endpoint = endpoints.open(faults={"no_tool": 1.0})
    user = project(tmp_path / "project", endpoint.base_url, count=200)
    stopped = user.do("run", "job.toml").expect(2)
    assert "none of the first 40 records got a label, for one reason: no_tool_call" in " ".join(stopped.err.split())
    assert "model.tool_choice" in stopped.err
    assert "labelpipe retry job.toml --relabel" in " ".join(stopped.err.split())
    assert endpoint.calls() < 3 * 100
    endpoint = endpoints.again(endpoint)
    assert user.do("retry", "job.toml", "--relabel", "--json").expect(0).json["labelled"] == 200
    user.verify()
    endpoints.close(endpoint)


def test_a_signal_lets_what_is_in_flight_end(tmp_path: Path, endpoints: Endpoints) -> None:
    started = []
    for number in (signal.SIGINT, signal.SIGTERM):
        endpoint = endpoints.open(latency_ms=250)
        user = project(tmp_path / number.name, endpoint.base_url, count=400)
        started.append((number, endpoint, user, user.start("run", "job.toml", "--json")))
    for number, endpoint, user, process in started:
        endpoint.wait_for_calls(12)
        process.signal(number)
        done = process.wait().expect(130)
        assert f"{number.name}: finishing" in done.err
        assert done.json["ended"] == "interrupted"
        totals = endpoint.totals()
        assert totals["lost"] == 0
        assert totals["answered"] == totals["calls"], "nobody hung up"
        given = {key: label["label"] for key, (label,) in endpoint.given().items() if label}
        assert {row["id"]: row["label"] for row in user.labels()} == given
        assert done.json["labelled"] == totals["answered"] < 400
        user.verify()
        endpoints.close(endpoint)


def test_a_second_signal_or_the_end_of_the_grace_cuts_off(tmp_path: Path, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(poison={"HANG": "hang"})
    made = []
    for name, grace_s in (("twice", 600), ("grace", 0.5)):
        user = project(tmp_path / name, endpoint.base_url, limits={"grace_s": grace_s}, model={"timeout_s": 600})
        user.give(hanging(30, answered=10))
        made.append((user, user.start("run", "job.toml", "--json")))
    endpoint.wait_for_calls(2 * (10 + 8))
    for _, process in made:
        process.signal(signal.SIGINT)
    time.sleep(0.2)  # two signals at once are one
    made[0][1].signal(signal.SIGINT)
    for user, process in made:
        # It would not end in the time that is waited for it, if it waited for a hanging call.
        assert process.wait().expect(130).json["labelled"] == 10
        assert {row["id"] for row in user.labels()} == {row["id"] for row in rows(10)}, "the ten answers are kept"
    assert made[0][0].verify()["pending"] == 20
    endpoints.close(endpoint)
