"""What can be said on the command line and in the environment, and what comes back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from end_to_end.stage import Endpoints, Project, project, read_csv, rows


def test_overrides_reach_the_run(tmp_path: Path, endpoints: Endpoints) -> None:
    """--set beats the environment, which beats the file; --input, --output and --limit are short for their keys."""
    endpoint = endpoints.open(latency_ms=40)
    user = project(tmp_path / "project", endpoint.base_url, limits={"concurrency": 32})
    user.give(rows(60, first=100), "other.jsonl")
    env = {"LABELPIPE_LIMITS__CONCURRENCY": "5", "LABELPIPE_OUTPUT__COLUMNS": '["id"]'}
    short = ["--input", "other.jsonl", "--output", "elsewhere", "--limit", "30"]
    done = user.do("run", "job.toml", "--json", "--set", "limits.concurrency=3", *short, env=env).expect(0)
    assert done.json["run_dir"] == "elsewhere"
    assert not user.run_dir.exists()
    labels = read_csv(user.folder / "elsewhere" / "labels.csv")
    assert list(labels[0]) == ["id", "label", "simulated"], "the environment beats the file"
    assert {row["id"] for row in labels} == {row["id"] for row in rows(30, first=100)}
    assert endpoint.totals()["peak_in_flight"] == 3, "--set beats the environment"

    shown = user.do("config", "show", "job.toml", "--json", "--set", "limits.max_repairs=1", env=env).expect(0).json
    assert (shown["limits.concurrency"]["value"], shown["limits.max_repairs"]["value"]) == (5, 1)
    assert "LABELPIPE_LIMITS__CONCURRENCY" in shown["limits.concurrency"]["origin"]
    assert "--set" in shown["limits.max_repairs"]["origin"]
    assert shown["input.path"]["origin"].startswith("job.toml:")
    endpoints.close(endpoint)


def test_json_is_alone_on_stdout_and_the_rest_is_on_stderr(make: Callable[..., Project]) -> None:
    user = make(count=30)
    plain = user.do("run", "job.toml").expect(0)
    assert plain.out == ""
    assert "30 labelled" in plain.err
    assert "SIMULATED" in plain.err
    assert not {"\r", "\x1b"} & set(plain.err), "without a terminal there are plain lines"
    closing = plain.err[plain.err.index("Done\n") :]
    assert len(closing.splitlines()) < 40, "a label of two dozen values is listed, and the rest stays short"
    summary = user.do("run", "job.toml", "--json").expect(0)
    assert summary.json["labelled"] == 30
    assert summary.json["simulated"] is True, "also where this session asked nothing"
    assert "{" not in summary.err


def test_help_names_the_exit_codes(tmp_path: Path) -> None:
    told = " ".join(Project(tmp_path).do("--help").expect(0).out.split())
    for words in ("0 all records labeled", "1 finished", "2 cannot start", "3 stopped early", "130 interrupted"):
        assert words in told
