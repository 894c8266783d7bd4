"""An endpoint for each test, and projects that call it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from end_to_end.stage import Endpoint, Endpoints, Project, project


@pytest.fixture
def endpoint(endpoints: Endpoints) -> Iterator[Endpoint]:
    """A fast endpoint without faults and with fresh books."""
    opened = endpoints.open()
    yield opened
    endpoints.close(opened)


@pytest.fixture
def make(tmp_path: Path, endpoint: Endpoint) -> Callable[..., Project]:
    """Makes projects for that endpoint, each in a folder of its own."""

    def make_one(name: str = "project", *, base_url: str = endpoint.base_url, **more: Any) -> Project:
        return project(tmp_path / name, base_url, **more)

    return make_one
