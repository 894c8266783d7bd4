"""Fixtures of the store's tests."""

from __future__ import annotations

import pytest

from pipeline.store import sinks


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Marks move with every few rows, and every growth of columns is one of a large file."""
    monkeypatch.setattr(sinks, "SYNC_BYTES", 60)
    monkeypatch.setattr(sinks, "SMALL_BYTES", 40)
