"""People review a run while it is at work, while it is killed, and while its input and its prompt change."""

from __future__ import annotations

import asyncio
import csv
import random
from collections.abc import Mapping
from pathlib import Path

import pytest
from end_to_end.served import wait_until
from end_to_end.stage import CODES, Endpoints, Project, project, read_csv, rows

from pipeline.review import take_answers
from pipeline.store import RunDir

pytestmark = pytest.mark.chaos

COUNT, KILLS = 160, 2


def labels(user: Project) -> dict[str, str]:
    """The rows that are there; the last may be half written."""
    try:
        lines = (user.run_dir / "labels.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    except FileNotFoundError:
        return {}
    found = csv.DictReader(lines)
    return {row["id"]: row["label"] for row in found if row["label"] in CODES}


def review(user: Project, dice: random.Random, by: str) -> Mapping[str, str]:
    """Correct some of the records that are in the file by now; what was said. What agrees would say nothing."""
    there = labels(user)
    keys = dice.sample(sorted(there), min(4, len(there)))
    said = {key: dice.choice([code for code in CODES if code != there[key]]) for key in keys}
    path = Path(f"{user.folder}/{by}.csv")
    path.write_text("id,label\n" + "".join(f"{key},{label}\n" for key, label in said.items()), encoding="utf-8")
    asyncio.run(take_answers(user.run_dir, path, by=by))
    return said


def test_no_correction_is_lost(tmp_path: Path, endpoints: Endpoints, seed: int) -> None:
    dice = random.Random(seed)
    endpoint = endpoints.open(latency_ms=40.0, latency_jitter=0.5)
    user = project(tmp_path, endpoint.base_url, count=COUNT)
    said: dict[str, str] = {}
    for number in range(KILLS):
        process = user.start("run", "job.toml")
        most = dice.randint(40, 60) * (number + 1)
        # A reviewer who comes first would write the files, and the run would be refused.
        wait_until(lambda: RunDir(user.run_dir).is_running() and len(labels(user)) > 10)
        said |= review(user, dice, "ann")
        wait_until(lambda: len(labels(user)) > most)  # noqa: B023
        said |= review(user, dice, "bob")
        process.kill()
    user.run()
    assert {key: labels(user)[key] for key in said} == said
    user.verify()
    # Another prompt for all, and records that are new or have another text: corrections of the others stay.
    given = rows(COUNT + 10)
    changed = dice.choice(list(said))
    given = [{**row, "text": "another text"} if row["id"] == changed else row for row in given]
    user.give(given)
    user.configure(task={"prompt": "Once more: {{ text }}"})
    assert "--keep-corrections" in user.do("run", "job.toml", "--relabel").expect(2).err
    words = ("run", "job.toml", "--relabel", "--keep-corrections")
    process = user.start(*words)
    wait_until(lambda: 20 < len(labels(user)) < COUNT)
    process.kill()
    user.do(*words).expect(0)
    del said[changed]
    found = {row["id"]: row["label"] for row in read_csv(user.run_dir / "labels.csv")}
    assert len(found) == COUNT + 10
    assert {key: found[key] for key in said} == said
    user.verify()
