"""Time and money: the constants that several rooms share, and the words for a person."""

import math
from collections.abc import Iterable
from typing import Any

HOUR_S, DAY_S = 3_600, 86_400
#: A limit that is whole again within this is one a minute, not one a day: a minute, and what a server's clock slips.
MINUTE_RESET_S = 65.0
#: What is said in place of a sum of money where the model has no price.
UNPRICED = "price unknown (set model.price)"


def shorten_list(words: Iterable[Any], most: int = 3) -> str:
    """The first words of a list, and how many more there are."""
    items = list(map(str, words))
    return ", ".join(items[:most]) + (f" and {len(items) - most:,} more" if len(items) > most else "")


def duration(seconds: float) -> str:
    """`42 s`, `7 min`, `3 h`, `3 h 20 min`, `2 d 4 h`."""
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
    """`$12.34`, with more digits for less money; where the price is unknown, that it is and the key that sets it."""
    if cost_usd is None:
        return UNPRICED
    return f"${cost_usd:,.2f}" if cost_usd >= 1 or cost_usd == 0 else f"${cost_usd:.4f}"


def exact_dollars(usd: float) -> str:
    """US dollars beside a cap: cents, and as many digits more as tell a small amount from the next one."""
    digits = 2 if usd <= 0 or usd >= 100 else max(2, 3 - math.floor(math.log10(usd)))
    whole, _, part = f"{usd:,.{digits}f}".partition(".")
    return f"${whole}.{part[:2]}{part[2:].rstrip('0')}"
