"""Commands for people who look at labels: draws, their answers, and one record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.frame import MEASURE, AsJson, RunOf, app, fail, print_json, run_of, run_through, show

#: Which records are drawn.
Sample = Annotated[int, typer.Option("--sample", min=0, help="Draw N records at random.", metavar="N")]
PerClass = Annotated[
    int, typer.Option("--per-class", min=0, help="Draw N records of each class at random.", metavar="N")
]
Uncertain = Annotated[
    int,
    typer.Option("--uncertain", min=0, help="Draw the N records with the least agreement or confidence.", metavar="N"),
]
Disagreements = Annotated[
    str | None,
    typer.Option(
        "--disagreements", help="Draw the records that another run or a gold file labels differently.", metavar="OTHER"
    ),
]
Where = Annotated[
    str | None,
    typer.Option("--where", help="Draw from the records of which this is true; alone: all of them.", metavar="EXPR"),
]
Column = Annotated[
    str | None, typer.Option("--column", help="The label column that is meant. Default: the first.", metavar="NAME")
]
Score = Annotated[
    str | None,
    typer.Option("--score", help="The column for --uncertain. Default: agreement, else confidence.", metavar="NAME"),
]
Seed = Annotated[int, typer.Option("--seed", help="The same seed draws the same records.")]
Blind = Annotated[bool, typer.Option("--blind", help="Do not show the model's labels.")]
#: Where the draw goes, and where its answers come from.
To = Annotated[Path | None, typer.Option("--to", help="Write the draw to this file.", metavar="FILE")]
From = Annotated[
    Path | None,
    typer.Option("--from", help="Take the answers of this file back, such as an edited labels.csv.", metavar="FILE"),
]
By = Annotated[str | None, typer.Option("--by", help="Who has answered, for --from.", metavar="NAME")]
DrawId = Annotated[
    int | None,
    typer.Option("--draw", help="The draw that the file answers. Default: found by its keys.", metavar="ID"),
]


@app.command(rich_help_panel=MEASURE)
def review(
    run: RunOf = None,
    sample: Sample = 0,
    per_class: PerClass = 0,
    uncertain: Uncertain = 0,
    disagreements: Disagreements = None,
    where: Where = None,
    column: Column = None,
    score: Score = None,
    seed: Seed = 0,
    blind: Blind = False,
    to: To = None,
    from_file: From = None,
    by: By = None,
    draw: DrawId = None,
    json_out: AsJson = False,
) -> None:
    """Draw records for people to check, and take their answers back as corrections."""
    run_dir = run_of(run)
    if from_file is not None:
        _take(run_dir, from_file, by, draw, json_out=json_out)
        return
    if to is None:
        fail("say where to write the draw: --to draw.csv; or take its answers back: --from draw.csv --by NAME")

    async def write() -> dict[str, Any]:
        from pipeline.review import DrawOptions, draw_to_file

        options = DrawOptions(sample, per_class, uncertain, disagreements, where, column, score, seed, blind)
        return await draw_to_file(run_dir, options, to)

    facts = run_through(write())
    from pipeline.show import draw_lines

    if json_out:
        print_json(facts)
    else:
        show("\n".join(draw_lines(facts)))


def _take(run_dir: Path, file: Path, by: str | None, draw: int | None, *, json_out: bool) -> None:
    if by is None:
        fail("say who has answered: --by NAME")

    async def take() -> dict[str, Any]:
        from pipeline.review import take_answers

        return await take_answers(run_dir, file, by=by, draw=draw)

    facts = run_through(take())
    from pipeline.show import answers_lines

    if json_out:
        print_json(facts)
    else:
        show("\n".join(answers_lines(facts)))


@app.command("show", rich_help_panel=MEASURE)
def show_record(
    run: Annotated[Path, typer.Argument(help="The run folder, or its config.", metavar="RUN|CONFIG")],
    key: Annotated[str, typer.Argument(help="The key of the record: input.key, or its place.", metavar="KEY")],
    json_out: AsJson = False,
) -> None:
    """Show one record: its prompt, each answer, cost, and corrections."""
    run_dir = run_of(run)

    async def look() -> dict[str, Any]:
        from pipeline.review import show_record as look_at

        return await look_at(run_dir, key)

    facts = run_through(look())
    from pipeline.show import record_lines

    if json_out:
        print_json(facts)
    else:
        show("\n".join(record_lines(facts)))
