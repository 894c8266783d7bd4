"""The plain forms, as a script and as a notebook call them: what they give, and how it shows itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from end_to_end.stage import Endpoint, Project

from labelpipe import Settings, Status, check, plan, preview, replay, run, status, verify
from pipeline.errors import ConfigError, SetupError
from pipeline.show import closing_lines

Make = Callable[..., Project]


@pytest.fixture
def project(make: Make, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Twelve records, more at once than come back in order; one of them cannot be rendered."""
    made = make(count=12, task={"prompt": "{{ id }} {{ text if id != 'r0005' else nothing }}"})
    monkeypatch.chdir(made.folder)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    return made


def test_each_form_gives_its_result_and_shows_it(project: Project) -> None:
    checked = check("job.toml", online=False)
    assert checked.ok
    assert repr(checked).splitlines()[0].startswith("ok")
    seen = preview("job.toml", 2)
    assert [one.status for one in seen.outcomes] == [Status.LABELLED] * 2
    assert "2 of 2 labelled" in repr(seen)
    assert "r0009" in repr(preview("job.toml", 0, keys=["r0009"], prompt=True))
    planned = plan("job.toml", 3, quiet=True)
    assert (planned.done, planned.left) == (3, 9)
    assert repr(planned)
    summary = run("job.toml")
    assert (summary.labelled, summary.rejected) == (11, 1)
    assert repr(summary).splitlines() == closing_lines(summary)
    found = status("job.toml")
    assert (found.labelled, found["rejected"], found.ended, found.running) == (11, 1, "complete", False)
    assert repr(found).startswith("run  (not running)")
    assert repr(verify("run")).endswith("run: verified.")
    assert replay("run").labelled == 11
    assert status().run_dir == "run"


def test_programs_that_await_them_go_on(project: Project) -> None:
    """Up to 0.2 all but `run` were coroutines."""

    async def program() -> tuple[int, int, bool, bool]:
        seen, found = await preview(Settings.load("job.toml"), 1), await status("run")
        return len(seen.outcomes), found["labelled"], (await verify("run")).ok, (await check("job.toml"))[0].ok is True

    run("job.toml")
    assert asyncio.run(program()) == (1, 11, True, True)
    assert asyncio.run(verify("run")).ok  # type: ignore[arg-type]


def test_they_work_where_a_loop_runs(project: Project) -> None:
    """As in a notebook's cell."""

    async def cell() -> tuple[int, int, bool]:
        seen, summary = preview(Settings.load("job.toml"), 1), run("job.toml")
        return len(seen.outcomes), summary.labelled, verify().ok and check("job.toml", online=False).ok

    assert asyncio.run(cell()) == (1, 11, True)


def test_a_frame_in_and_a_frame_out_in_its_order(project: Project, endpoint: Endpoint) -> None:
    import pandas  # each process that collects the tests would import it

    given = pandas.DataFrame({"id": [f"k{n}" for n in range(40, 0, -1)], "text": [f"text {n}" for n in range(40)]})
    given.loc[7, "id"] = "r0005"
    summary = run("job.toml", records=given)
    found = summary.to_pandas()
    assert list(found.columns) == ["id", "text", "label", "simulated", "problem"]
    assert list(found.id) == list(given.id)
    assert list(found.index) == list(range(40))
    assert list(found.problem.dropna()) == ["render_error"]
    written = {row["id"]: row["label"] for row in project.labels()}
    assert {row.id: row.label for row in found[found.problem.isna()].itertuples()} == written


def test_a_summary_is_a_small_table_in_a_notebook(project: Project) -> None:
    project.configure(
        input={"path": "<b>.jsonl"},
        task={"labels": {"label": ["one", "two"]}},
        model={"base_url": "rehearsal"},
        output={"dir": "<i>"},
    )
    Path("in.jsonl").rename("<b>.jsonl")
    html = run("job.toml")._repr_html_()
    for wanted in ("<th>labelled</th><td>11</td>", "<th>failed</th><td>0</td>", "render_error 1", "<th>label</th>"):
        assert wanted in html, html
    for wanted in ("free; the model would cost", "SIMULATED", "<td>&lt;i&gt;/labels.csv</td>"):
        assert wanted in html, html
    assert "<i>" not in html


def test_an_error_is_its_message_in_a_notebook(project: Project) -> None:
    project.configure(limits={"rpm": 3})
    with pytest.raises(ConfigError) as raised:
        run("job.toml")
    shown = raised.value._render_traceback_()
    assert shown[0].startswith("ConfigError: job.toml:")
    assert "limits.rpm" in shown[0]
    assert not any("Traceback" in line for line in shown)


def test_a_dict_in_the_place_of_a_config_is_told() -> None:
    with pytest.raises(SetupError, match="the config is a dict; expected a path or Settings"):
        run({"input": {"path": "x.csv"}})  # type: ignore[arg-type]
