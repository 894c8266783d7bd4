"""One process serves the endpoints of all scenes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from end_to_end.stage import Endpoints, Process


@pytest.fixture(scope="session")
def endpoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """Opens endpoints with any options."""
    with Endpoints(tmp_path_factory.mktemp("books")) as host:
        yield host
    Process.end_all()
