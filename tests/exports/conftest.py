"""Runs that several tests export."""

from __future__ import annotations

from pathlib import Path

import pytest
from export_samples import labelled, made, texts


@pytest.fixture(scope="session")
def tickets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 records of three classes: 200, 150 and 50."""
    classes = ["bill"] * 200 + ["login"] * 150 + ["other"] * 50
    outcomes = [
        labelled(at, {"id": f"r{at:05}", "text": text, "customer": f"c{at % 37}"}, classes[at * 7 % 400])
        for at, text in enumerate(texts(range(400)))
    ]
    return made(tmp_path_factory.mktemp("tickets") / "run", outcomes)
