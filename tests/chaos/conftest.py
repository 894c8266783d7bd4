"""A thread serves the endpoints with weather."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from end_to_end.stage import Process
from rounds import ROUNDS, seed_of
from sky import Skies


@pytest.fixture
def skies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Skies]:
    """Opens endpoints whose weather changes."""
    with Skies(tmp_path_factory.mktemp("skies")) as host:
        yield host
    Process.end_all()


@pytest.fixture(scope="module", params=ROUNDS, ids=lambda number: f"round{number}")
def round_seed(request: pytest.FixtureRequest) -> int:
    """The seed of this round, for what several tests of a file share."""
    return seed_of(request.param)


@pytest.fixture
def seed(round_seed: int) -> int:
    """The seed of this round; shown when the test fails."""
    print(f"repeat with CHAOS_SEED={round_seed}")  # noqa: T201 - pytest shows it where a test fails
    return round_seed
