"""Reviews labels from Python: draws and the answers to them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import review
from pipeline.api.display import DisplayableFacts, sync_form


@dataclass(frozen=True, slots=True, repr=False)
class DrawFile(DisplayableFacts):
    """A draw that was written to a file. `facts` holds all that `labelpipe review --to --json` prints.

    `items` are the records in the file's order, each with `key`, `probability`, and `stratum`.
    """

    @property
    def items(self) -> Sequence[Mapping[str, Any]]:
        """The records that were drawn."""
        values: Sequence[Mapping[str, Any]] = self.facts["items"]
        return values

    _view = "draw_lines"


@dataclass(frozen=True, slots=True, repr=False)
class TakenAnswers(DisplayableFacts):
    """The result of reading a file of answers. `facts` holds all that `labelpipe review --from --json` prints.

    `facts["corrected"]` and the other counts are numbers of rows.
    """

    _view = "answers_lines"


@dataclass(frozen=True, slots=True, repr=False)
class RecordView(DisplayableFacts):
    """One record and everything that its run has about it. `facts` holds all that `labelpipe show --json` prints.

    It has `key`, `status`, `fields`, `rows`, `prompt`, `answers`, `correction`, `reviews`, and `draws`. Times are Unix
    times.
    """

    _view = "record_lines"


async def ashow_record(run: str | Path | None, key: str) -> RecordView:
    """Return one record of a run: fields, the prompt that was sent, answers with their costs, rows, and corrections.

    Raises SetupError if the run does not have the key.
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

    `sample` draws that many records at random, `per_class` that many of each class of the label `column`, `uncertain`
    those with the lowest `score` (a column), and `disagreements` those that another run or a gold file labels
    differently. `where` is an expression that limits the records to draw from. The draw is saved in the run folder with
    the probability of each record. `draw` is the id of an existing draw to write instead. Raises SetupError.
    """
    options = review.DrawOptions(sample, per_class, uncertain, disagreements, where, column, score, seed, blind)
    return DrawFile(await review.draw_to_file(run, options, to, draw=draw))


async def atake_answers(run: str | Path | None, path: str | Path, *, by: str, draw: int | None = None) -> TakenAnswers:
    """Read the answers of the person `by` from a file: a completed draw, or an edited labels.csv.

    Answers that differ from the labels become corrections, and the run's files are written again. Either the whole file
    is accepted or nothing. `draw` is the id of the draw that it answers, if its keys do not show it. Raises SetupError.
    """
    return TakenAnswers(await review.take_answers(run, path, by=by, draw=draw))


@dataclass(frozen=True, slots=True, repr=False)
class PageReview(DisplayableFacts):
    """The result of a review on the page. `facts` holds all that `labelpipe review --json` prints at the end.

    `facts["answered"]` and the other counts are numbers of records. `facts["estimates"]` has an entry for each label
    field that is answered by choosing: `field`, `mean`, `low`, `high` (shares from 0 to 1), `n`, and `right`.
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

    The draw is the one with the id `draw`, or the one that the same other options made before, or a new one (see
    `draw_records`); without any of these, the last draw. `ready` receives the address to open on this machine. Each
    answer is saved at once, however the program ends. Makes no call. Raises SetupError.
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
