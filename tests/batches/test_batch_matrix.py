"""Tasks of every kind through batches that go wrong, killed at random moments; `CHAOS_ROUNDS` plays all of them."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from batches.lanes import in_a_loop
from batches.matrix import FAULTS, TASKS, Scene, played

FEW = [
    Scene("gold", "batch", "responses", "ends", kills=2),
    Scene("talk", "live", "chat", "lines", kills=2),
    Scene("dupes", "batch", "chat", "lost", kills=1),
]
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "0"))
ALL = [
    Scene(task, finish, ("chat", "responses")[seed % 2], faults, kills=4, seed=seed)
    for seed, (task, finish), faults in itertools.product(
        range(1, ROUNDS + 1), itertools.product(TASKS, ("live", "batch")), FAULTS
    )
]


@pytest.mark.chaos
@pytest.mark.parametrize("scene", [*FEW, *ALL], ids=lambda one: f"{one.task}-{one.finish}-{one.faults}-{one.seed}")
@in_a_loop
async def test_batches_give_the_rows_of_live_calls_and_pay_nothing_twice(tmp_path: Path, scene: Scene) -> None:
    await played(tmp_path, scene)
