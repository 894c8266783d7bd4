"""The page on which a person checks labels, from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import review, show
from pipeline.api.shown import ShownFacts
from pipeline.runner import in_loop


@dataclass(frozen=True, slots=True, repr=False)
class PageReview(ShownFacts):
    """What a review on the page came to. `facts` is all of it, as `labelpipe review --json` prints it at the end.

    `facts["answered"]` and the other counts are numbers of records; `facts["estimates"]` has one entry for each label
    field that is answered by choosing: `field`, `mean`, `low`, `high` (shares from 0 to 1), `n` and `right`.
    """

    def _lines(self) -> Sequence[str]:
        return show.reviewed_lines(self.facts)


async def areview_page(
    run: str | Path | None = None,
    *,
    sample: int = 0,
    per_class: int = 0,
    uncertain: int = 0,
    disagreements: str | Path | None = None,
    where: str | None = None,
    column: str | None = None,
    score: str | None = None,
    seed: int = 0,
    blind: bool = False,
    draw: int | None = None,
    by: str | None = None,
    port: int = 0,
    ready: Callable[[str], None] = print,
) -> PageReview:
    """`review_page`, for a program that has an event loop. Cancel it to end the review."""
    options = review.DrawOptions(sample, per_class, uncertain, disagreements, where, column, score, seed, blind)
    facts = await review.review_page(
        run, options, draw=draw, by=by, port=port, ready=lambda found: ready(found["address"])
    )
    return PageReview(facts)


def review_page(
    run: str | Path | None = None,
    *,
    sample: int = 0,
    per_class: int = 0,
    uncertain: int = 0,
    disagreements: str | Path | None = None,
    where: str | None = None,
    column: str | None = None,
    score: str | None = None,
    seed: int = 0,
    blind: bool = False,
    draw: int | None = None,
    by: str | None = None,
    port: int = 0,
    ready: Callable[[str], None] = print,
) -> PageReview:
    """Serve the page on which the person `by` checks the labels of a draw, until the review is ended there.

    The draw is the one of the id `draw`, or the one that the other options made before, or a new one (see
    `draw_records`); without any of them the last one. `ready` gets the address to open, on this machine. Each answer
    is kept at once, whatever ends the program. Makes no call. Raises SetupError.
    """
    return in_loop(
        areview_page(
            run,
            sample=sample,
            per_class=per_class,
            uncertain=uncertain,
            disagreements=disagreements,
            where=where,
            column=column,
            score=score,
            seed=seed,
            blind=blind,
            draw=draw,
            by=by,
            port=port,
            ready=ready,
        )
    )
