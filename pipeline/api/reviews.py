"""What people say about labels, from Python: draws, and the answers to them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import review
from pipeline.api.display import DisplayableFacts, sync_form


@dataclass(frozen=True, slots=True, repr=False)
class DrawFile(DisplayableFacts):
    """A draw that was written as a file. `facts` is all of it, as `labelpipe review --to --json` prints it.

    `items` are the records in the file's order, each with `key`, `probability` and `stratum`.
    """

    @property
    def items(self) -> Sequence[Mapping[str, Any]]:
        """The records that were drawn."""
        values: Sequence[Mapping[str, Any]] = self.facts["items"]
        return values

    _view = "draw_lines"


@dataclass(frozen=True, slots=True, repr=False)
class TakenAnswers(DisplayableFacts):
    """What came of a file of answers. `facts` is all of it, as `labelpipe review --from --json` prints it.

    `facts["corrected"]` and the other counts are numbers of rows.
    """

    _view = "answers_lines"


@dataclass(frozen=True, slots=True, repr=False)
class RecordView(DisplayableFacts):
    """One record with all that its run knows of it. `facts` is what `labelpipe show --json` prints.

    It has `key`, `status`, `fields`, `rows`, `prompt`, `answers`, `correction`, `reviews` and `draws`. Times are Unix
    times.
    """

    _view = "record_lines"


async def ashow_record(run: str | Path | None, key: str) -> RecordView:
    """One record of a run: its fields, the prompt as it was sent, each answer with its cost, its rows, and corrections.

    Raises SetupError where the run knows nothing of this key.
    """
    return RecordView(await review.show_record(run, key))


async def adraw_records(
    run: str | Path | None = None,
    to: str | Path = "draw.csv",
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
) -> DrawFile:
    """Draw records of a run for people to check, and write them to the CSV or JSON Lines file `to`. Makes no call.

    `sample` are records at random, `per_class` so many of each class of the label `column`, `uncertain` those with the
    lowest `score` (a column), `disagreements` those that another run or a gold file labels differently. `where` is an
    expression that narrows down what is drawn from. The draw is kept in the run folder, with the probability of each
    record. With `draw` it is the draw of this id, which is there already. Raises SetupError.
    """
    options = review.DrawOptions(sample, per_class, uncertain, disagreements, where, column, score, seed, blind)
    return DrawFile(await review.draw_to_file(run, options, to, draw=draw))


async def atake_answers(run: str | Path | None, path: str | Path, *, by: str, draw: int | None = None) -> TakenAnswers:
    """Take the answers of the person `by` from a file: a draw that was filled in, or an edited labels.csv.

    What differs from the labels becomes a correction, and the run's files are written again with it. All of the file
    is taken, or nothing. `draw` is the id of the draw that it answers, where its keys do not tell. Raises SetupError.
    """
    return TakenAnswers(await review.take_answers(run, path, by=by, draw=draw))


@dataclass(frozen=True, slots=True, repr=False)
class PageReview(DisplayableFacts):
    """What a review on the page came to. `facts` is all of it, as `labelpipe review --json` prints it at the end.

    `facts["answered"]` and the other counts are numbers of records; `facts["estimates"]` has one entry for each label
    field that is answered by choosing: `field`, `mean`, `low`, `high` (shares from 0 to 1), `n` and `right`.
    """

    _view = "reviewed_lines"


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
    """Serve the page on which the person `by` checks the labels of a draw, until the review is ended there.

    The draw is the one of the id `draw`, or the one that the other options made before, or a new one (see
    `draw_records`); without any of them the last one. `ready` gets the address to open, on this machine. Each answer
    is kept at once, whatever ends the program. Makes no call. Raises SetupError.
    """
    options = review.DrawOptions(sample, per_class, uncertain, disagreements, where, column, score, seed, blind)
    facts = await review.review_page(
        run, options, draw=draw, by=by, port=port, ready=lambda values: ready(values["address"])
    )
    return PageReview(facts)


show_record = sync_form(ashow_record)
draw_records = sync_form(adraw_records)
take_answers = sync_form(atake_answers)
review_page = sync_form(areview_page)
