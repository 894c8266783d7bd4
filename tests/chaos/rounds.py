"""Dice for the chaos tests. `CHAOS_SEED=...` repeats them, `CHAOS_ROUNDS=20` throws them so many times."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Case = TypeVar("Case")

SEED = int(os.environ.get("CHAOS_SEED", time.time_ns() % 1_000_000))
ROUNDS = range(int(os.environ.get("CHAOS_ROUNDS", "1")))


def seed_of(number: int) -> int:
    """The seed of a round: that of the first round is the one that was given."""
    return SEED + 7919 * number


def side_by_side(work: Callable[[Case], None], cases: Iterable[Case]) -> None:
    """Do it for all cases at once: most of each is waiting."""
    with ThreadPoolExecutor() as stage:
        for ended in [stage.submit(work, case) for case in cases]:
            ended.result()
