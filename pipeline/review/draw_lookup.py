"""Which draw a page is about: a new one, the one of this id, or the one that was made in the same way before."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.errors import SetupError, list_names
from pipeline.review.drawing import REVIEW, DrawOptions, draw_records
from pipeline.review.reviewed_run import ReviewedRun
from pipeline.store import Draw, DrawItem, read_reviews


async def find_or_make_draw(
    reviewed_run: ReviewedRun, options: DrawOptions, draw: int | None
) -> tuple[Draw, Sequence[DrawItem], bool]:
    """The draw with its records, and whether it was there before. Raises SetupError.

    Without options, the last draw that was made for a review.
    """
    known = await asyncio.to_thread(_find_draw, reviewed_run, options, draw)
    if known is not None:
        return *known, True
    _, made, items = await draw_records(reviewed_run.run_dir.path, options)
    return made, items, False


def _find_draw(
    reviewed_run: ReviewedRun, options: DrawOptions, wanted: int | None
) -> tuple[Draw, Sequence[DrawItem]] | None:
    reviews = read_reviews(reviewed_run.run_dir.path)
    if reviews is None:
        if wanted is not None:
            raise SetupError(f"--draw {wanted}: this run has no draw yet")
        return None
    with reviews:
        draws = reviews.draws()
        if wanted is not None:
            chosen = [draw for draw in draws if draw.id == wanted]
            if not chosen:
                raise SetupError(
                    f"--draw {wanted}: this run has no such draw; it has {list_names([d.id for d in draws])}"
                )
        elif options:
            chosen = [draw for draw in draws if _is_made_so(draw, options)]
        else:
            chosen = [draw for draw in draws if draw.purpose == REVIEW]
        return (chosen[-1], reviews.items_of(chosen[-1].id)) if chosen else None


def _is_made_so(draw: Draw, options: DrawOptions) -> bool:
    """Whether the draw came of these options."""
    spec: Mapping[str, Any] = draw.spec
    if (draw.purpose, draw.seed, draw.blind) != (options.purpose, options.seed, options.blind):
        return False
    names = ("where", "column", "score")
    if any(spec.get(name) != getattr(options, name) for name in names):
        return False
    return [_requested_part(part) for part in spec.get("parts", ())] == list(_parts(options))


def _requested_part(part: Mapping[str, Any]) -> tuple[str, Any]:
    kind = part["kind"]
    return kind, None if kind == "where" else part["other"] if kind == "disagreements" else part["n"]


def _parts(options: DrawOptions) -> list[tuple[str, Any]]:
    numbers = [(name, getattr(options, name)) for name in ("sample", "per_class", "uncertain")]
    parts: list[tuple[str, Any]] = [(name, n) for name, n in numbers if n]
    if options.disagreements is not None:
        parts.append(("disagreements", str(options.disagreements)))
    return parts or [("where", None)]
