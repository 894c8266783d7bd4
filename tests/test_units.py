"""Time and money as a person reads them."""

from __future__ import annotations

import pytest

from pipeline.units import dollars, duration, exact_dollars


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0 s"), (42.4, "42 s"), (89, "89 s"), (90, "2 min"), (420, "7 min"), (7170, "2 h"),
     (12_000, "3 h 20 min"), (172_800, "2 d"), (187_200, "2 d 4 h")],
)  # fmt: skip
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("cost", "text"),
    [(None, "price unknown (set model.price)"), (0.0, "$0.00"), (0.0123, "$0.0123"), (1234.5, "$1,234.50")],
)
def test_dollars(cost: float | None, text: str) -> None:
    assert dollars(cost) == text


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0, "$0.00"),
        (0.00042, "$0.00042"),
        (0.5, "$0.50"),
        (9.99873, "$9.999"),
        (12.3, "$12.30"),
        (1234.567, "$1,234.57"),
    ],
)
def test_dollars_beside_a_cap(usd: float, text: str) -> None:
    assert exact_dollars(usd) == text
