"""Draws the charts of the page as SVG without style or script. report.css styles them, in light and dark."""

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any
from xml.etree import ElementTree

from pipeline.report.timeline import Timeline

#: The width and height of a chart in CSS pixels, for screens and paper, and for phones. A wide chart scaled down to a
#: phone would have letters of five pixels.
SIZES = {"wide": (860, 250), "narrow": (350, 210)}
#: The library leaves space for labels of this size, in pixels. report.css sets the same size.
LABEL_PX = 12
#: The distances between the ticks of a time axis, in seconds.
_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800)
#: The most bars of latencies, and the factor from each bar to the next.
BARS, GROWTH = 40, 1.25
#: The elements that the library adds for its own scripts and styles.
_TAGS = frozenset({"defs", "title", "desc"})
_DIGITS = re.compile(r"(\.\d)\d+")

Points = list[tuple[float, float | None]]


def throughput_chart(pace: Timeline, description: str) -> dict[str, str]:
    """Draw answered and refused calls per minute, the limit, and the outages, over the active time, in each size.

    `description` is the chart in words.
    """
    peak = max(max(bucket.answered, bucket.refused) for bucket in pace.buckets)
    limits = [bucket.limit for bucket in pace.buckets if bucket.limit is not None]
    # A limit far above the reached pace would leave a flat line at the bottom.
    top = max([peak, *(limit for limit in limits if limit <= 4 * peak)])
    ticks = _ticks(top)
    middle = [((one.since_s + one.until_s) / 2, one) for one in pace.buckets]
    series: dict[str, tuple[Points, bool]] = {
        "outage": ([point for since, until, _ in pace.outages for point in _block(since, until, ticks[-1])], True),
        "border": ([point for at in pace.borders for point in _block(at, at, ticks[-1])], False),
        "area": ([(at, one.answered) for at, one in middle], True),
        "answered": ([(at, one.answered) for at, one in middle], False),
        "refused": ([(at, one.refused) for at, one in middle] if any(one.refused for _, one in middle) else [], False),
        "limit": (
            [
                (at, one.limit if one.limit is not None and one.limit <= ticks[-1] else None)
                for one in pace.buckets
                for at in (one.since_s, one.until_s)
            ],
            False,
        ),
    }

    def draw(width: int, height: int) -> Any:
        at = _time_ticks(pace.length_s, 8 if width > 500 else 4)
        return _lines(width, height, series, at, ticks, _length, (0.0, pace.length_s))

    return _draw_sizes(draw, "throughput", description)


def latency_chart(latencies: Mapping[int, int], step_s: float, description: str) -> dict[str, str]:
    """Draw how many answers took how long, in bars that grow by a quarter."""
    counts: dict[int, int] = {}
    for step, count in latencies.items():
        at = math.floor(math.log(max(step, 0.5) * step_s, GROWTH))
        counts[at] = counts.get(at, 0) + count
    first, last = min(counts), max(counts)
    first = max(first, last - BARS + 1)
    bars = [(GROWTH**at, GROWTH ** (at + 1), counts.get(at, 0)) for at in range(first, last + 1)]

    def draw(width: int, height: int) -> Any:
        every = math.ceil(len(bars) / (10 if width > 500 else 5))
        labels = [_seconds(low) if number % every == 0 else "" for number, (low, _, _) in enumerate(bars)]
        most = max(count for _, _, count in bars)
        chart = _library().Bar(
            **_options(width, height), x_labels=labels, y_labels=_ticks(most), value_formatter=_number
        )
        chart.add("answers", [count for _, _, count in bars])
        return chart

    return _draw_sizes(draw, "latency", description)


def calibration_chart(bins: Sequence[tuple[float, float]], description: str) -> dict[str, str]:
    """Draw the accuracy of labels by the model's confidence. `bins` are pairs of both, from 0 to 1."""
    series: dict[str, tuple[Points, bool]] = {
        "ideal": ([(0.0, 0.0), (1.0, 1.0)], False),
        "calibration": ([(confidence, accuracy) for confidence, accuracy in bins], False),
    }
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0]

    def draw(width: int, height: int) -> Any:
        return _lines(width, height, series, ticks, ticks, _percent, (0.0, 1.0), value=_percent, dots="calibration")

    return _draw_sizes(draw, "calibration", description)


@cache
def _library() -> Any:
    """Load the library when a chart is drawn, without its finder of map plugins, whose failing imports would warn."""
    import pygal
    import pygal.style

    sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__module__ != "pygal"]
    return pygal


# -- drawing -----------------------------------------------------------------------------------------------------------


def _options(width: int, height: int) -> dict[str, Any]:
    """Return the options of all charts, without the library's own style, script, and legend."""
    style = _library().style.Style(label_font_size=LABEL_PX, major_label_font_size=LABEL_PX)
    return {
        "width": width, "height": height, "style": style, "css": [], "js": [], "show_legend": False, "margin": 4,
        "print_values": False, "spacing": 8, "truncate_label": 40, "include_x_axis": True,
    }  # fmt: skip


def _lines(
    width: int,
    height: int,
    series: Mapping[str, tuple[Points, bool]],
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    x_text: Callable[[float], str],
    span: tuple[float, float],
    *,
    value: Callable[[float], str] | None = None,
    dots: str = "",
) -> Any:
    """Draw lines and areas over a numeric axis. The names of the series become CSS classes."""
    chart = _library().XY(
        **_options(width, height),
        show_dots=False,
        dots_size=3,
        xrange=span,
        range=(0, y_ticks[-1]),
        x_labels=list(x_ticks),
        y_labels=list(y_ticks),
        x_value_formatter=x_text,
        value_formatter=value or _number,
    )
    for name, (points, fill) in series.items():
        # The library pads shorter series with empty points, which would break off an area before its end.
        broken = any(value is None for _, value in points)
        chart.add(name, points, fill=fill, allow_interruptions=broken, show_dots=name == dots)
    return chart


def _draw_sizes(draw: Callable[[int, int], Any], name: str, description: str) -> dict[str, str]:
    """Return the chart in each size, as an element for the page."""
    return {size: _to_svg(draw(*box), name, description) for size, box in SIZES.items()}


def _to_svg(chart: Any, name: str, description: str) -> str:
    """Return the library's chart without what its scripts need. Each series has its name as its class."""
    names = [options["title"] for _, options in chart.raw_series]
    root = ElementTree.fromstring(chart.render(is_unicode=True))  # noqa: S314 - the library's text, from our numbers
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "class": f"chart {name}",
        "role": "img",
        "aria-label": description,
    }
    _clean(root, names)
    return ElementTree.tostring(root, encoding="unicode")


def _clean(node: ElementTree.Element, names: Sequence[str]) -> None:
    node.tag = node.tag.rpartition("}")[2]
    for below in list(node):
        _clean(below, names)
        words = below.get("class", "")
        if below.tag in _TAGS or words == "plot tooltip-overlay" or (below.tag == "g" and not len(below)):
            node.remove(below)
        elif match := re.match(r"series serie-(\d+)", words):
            below.set("class", f"series {names[int(match[1])]}")
    if "d" in node.attrib:
        node.set("d", _DIGITS.sub(r"\1", node.attrib["d"]))


def _block(since: float, until: float, top: float) -> Points:
    """Return the outline of a time span over the chart's height; a line if it has no width."""
    return [(since, 0.0), (since, top), (until, top), (until, 0.0), (until, None)]


# -- axes --------------------------------------------------------------------------------------------------------------


def _ticks(top: float) -> list[float]:
    """Return four to six round numbers from 0 to at least `top`."""
    rough = max(top, 1e-9) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough)
    if top >= 4:
        step = math.ceil(step)
    return [step * number for number in range(math.ceil(top / step) + 1)] if top > 0 else [0.0, 1.0]


def _time_ticks(length_s: float, most: int) -> list[float]:
    """Return at most `most` ticks at round times."""
    step = next((step for step in _STEPS_S if length_s / step <= most), math.ceil(length_s / most / 86_400) * 86_400)
    return [float(step * number) for number in range(int(length_s // step) + 1)]


def _length(seconds: float) -> str:
    """Format a time on the axis exactly: `45 s`, `2:30 min`, `1:30 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds else "0"
    if seconds >= 172_800 and seconds % 86_400 == 0:
        return f"{seconds / 86_400:.0f} days"
    size, name = (60, "min") if seconds < 3600 else (3600, "h")
    whole, rest = divmod(round(seconds), size)
    return f"{whole}:{rest // (size // 60):02} {name}" if rest else f"{whole} {name}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _seconds(value: float) -> str:
    """Format a latency with two digits, such as `0.85 s`."""
    return f"{value:,.0f} s" if value >= 10 else f"{value:.1f} s" if value >= 1 else f"{value * 1000:.0f} ms"
