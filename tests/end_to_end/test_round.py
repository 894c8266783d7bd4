"""Every command once, in the order in which a user meets them."""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path
from typing import Any

from end_to_end.stage import Endpoints, Project, read_csv

MOODS = ["negative", "neutral", "positive"]


def reviews(path: Path, count: int = 12) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "gold"])
        for number in range(count):
            text = "REFUSE this one" if number == 4 else f'Fine, "really"\nno. {number}'
            writer.writerow([f"r{number}", text, MOODS[number % 3]])


def names(checks: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["name"]: one["ok"] for one in checks}


def test_from_init_to_replay(tmp_path: Path, endpoints: Endpoints) -> None:
    endpoint = endpoints.open(poison={"REFUSE": "refusal"})
    env = {"LABELPIPE_MODEL__BASE_URL": endpoint.base_url, "LABELPIPE_TASK__PROMPT": "{{ id }} {{ text }}"}
    user = Project(tmp_path)
    reviews(tmp_path / "reviews.csv")

    told = user.do("init", "reviews.csv").expect(0)
    assert "labelpipe check   config/reviews.toml" in told.err
    written = tomllib.loads((tmp_path / "config" / "reviews.toml").read_text(encoding="utf-8"))
    assert list(written["task"]["labels"]["label"]) == MOODS

    looked = [
        user.start(*words, "--json", env=env, as_a_user=True)
        for words in (
            ["check", "config/reviews.toml"],
            ["preview", "config/reviews.toml", "-n", "3"],
        )
    ]
    checked, seen = (process.wait().expect(0).json for process in looked)
    assert checked["ok"] is True
    assert names(checked["checks"])["model"] is True
    assert (checked["server"]["form"], checked["server"]["calls"]) == ("required", 3)
    assert endpoint.calls() == 3 + 3
    assert [one["key"] for one in seen["records"]] == ["r0", "r1", "r2"]
    assert {one["label"]["label"] for one in seen["records"]} <= set(MOODS)
    written_files = [path.name for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert written_files == ["server-card.json"], "a preview writes nothing"

    ran = user.do("run", "config/reviews.toml", "--json", env=env, as_a_user=True).expect(1).json
    assert (ran["labelled"], ran["rejected"], ran["failed"], ran["pending"]) == (11, 1, 0, 0)
    assert ran["problems"] == {"refused": 1}
    assert ran["next_step"] == "labelpipe retry config/reviews.toml"

    looked = [user.start(command, "runs/reviews", "--json") for command in ("status", "verify")]
    status, proof = (process.wait().expect(0).json for process in looked)
    assert (status["running"], status["labelled"], status["rejected"]) == (False, 11, 1)
    assert status["summary"]["exit_code"] == 1
    assert proof["ok"] is True
    assert proof["counts"] == {"labelled": 11, "rejected": 1, "failed": 0, "rows_in": 12, "pending": 0, "orphans": 0}
    (failed,) = read_csv(tmp_path / "runs" / "reviews" / "failed.csv")
    assert (failed["key"], failed["status"], failed["code"], failed["text"]) == (
        "r4", "rejected", "refused", "REFUSE this one",
    )  # fmt: skip

    endpoint = endpoints.again(endpoint)
    again = user.do("retry", "config/reviews.toml", "--only", "timeout,refused", "--json", env=env).expect(0).json
    assert (again["labelled"], again["rejected"], again["calls"]) == (12, 0, 1)

    calls = endpoint.calls()
    replayed = user.do("replay", "config/reviews.toml", "--set", 'output.columns=["id"]', "--json", env=env)
    assert replayed.expect(0).json["labelled"] == 12
    assert endpoint.calls() == calls, "a replay makes no call"
    rows = read_csv(tmp_path / "runs" / "reviews" / "labels.csv")
    assert list(rows[0]) == ["id", "label", "simulated"]
    assert {row["id"]: row["label"] for row in rows} == {
        key: labels[-1]["label"] for key, labels in endpoint.given().items() if labels[-1] and key.startswith("r")
    }
    looked = [user.start(command, "runs/reviews", "--json") for command in ("status", "verify")]
    status, proof = (process.wait().expect(0).json for process in looked)
    assert (status["labelled"], status["summary"]["labelled"], proof["ok"]) == (12, 12, True)
    endpoints.close(endpoint)


def test_commands_on_nothing_say_so(tmp_path: Path) -> None:
    user = Project(tmp_path)
    started = [
        user.start("init", "none.csv"),
        user.start("status", "runs/none", "--json"),
        user.start("verify", "runs/none", "--json"),
        user.start("run", "none.toml", "--json"),
    ]
    for done in [one.wait() for one in started]:
        assert "none" in done.expect(2).err
        assert done.out == ""
        assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []
