"""Constants of time and money that several packages share, and their text forms."""

import math
from collections.abc import Iterable
from typing import Any

HOUR_S, DAY_S = 3_600, 86_400
#: A limit that resets within this time is per minute, not per day: a minute, plus some error of the server's clock.
MINUTE_RESET_S = 65.0
#: Replaces a sum of money if the model has no price.
UNPRICED = "price unknown (set model.price)"


def shorten_list(words: Iterable[Any], most: int = 3) -> str:
    """Join the first words of a list, and say how many more there are."""
    items = list(map(str, words))
    return ", ".join(items[:most]) + (f" and {len(items) - most:,} more" if len(items) > most else "")


def duration(seconds: float) -> str:
    """Format seconds as `42 s`, `7 min`, `3 h`, `3 h 20 min`, or `2 d 4 h`."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def dollars(cost_usd: float | None) -> str:
    """Format `$12.34`, with more digits for smaller amounts; an unknown price names the key that sets it."""
    if cost_usd is None:
        return UNPRICED
    return f"${cost_usd:,.2f}" if cost_usd >= 1 or cost_usd == 0 else f"${cost_usd:.4f}"


def exact_dollars(usd: float) -> str:
    """Format US dollars next to a cap: cents, and as many more digits as distinguish small amounts."""
    digits = 2 if usd <= 0 or usd >= 100 else max(2, 3 - math.floor(math.log10(usd)))
    whole, _, part = f"{usd:,.{digits}f}".partition(".")
    return f"${whole}.{part[:2]}{part[2:].rstrip('0')}"
