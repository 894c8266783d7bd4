"""Commands for people who look at labels: draws, their answers, one record, and new names for labels."""

from __future__ import annotations

import os
import sys
import webbrowser
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.application import (
    MEASURE,
    AsJson,
    Output,
    RunOf,
    Sets,
    app,
    echo,
    exit_on_error,
    fail,
    print_result,
    run_and_print,
    run_of,
    run_until_interrupted,
    settings_of,
)

if TYPE_CHECKING:
    from pipeline.settings import Settings

#: Options for the records to draw.
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
    typer.Option("--where", help="Draw only records that match. Without a number, draw all of them.", metavar="EXPR"),
]
Column = Annotated[
    str | None, typer.Option("--column", help="The label column to use. Default: the first one.", metavar="NAME")
]
Score = Annotated[
    str | None,
    typer.Option("--score", help="The column for --uncertain. Default: agreement, then confidence.", metavar="NAME"),
]
Seed = Annotated[int, typer.Option("--seed", help="The same seed draws the same records.")]
Blind = Annotated[bool, typer.Option("--blind", help="Do not show the model's labels.")]
#: Options for the file of the draw and its answers.
To = Annotated[Path | None, typer.Option("--to", help="Write the draw to this file.", metavar="FILE")]
From = Annotated[
    Path | None,
    typer.Option("--from", help="Import the answers in this file, such as an edited labels.csv.", metavar="FILE"),
]
By = Annotated[
    str | None,
    typer.Option("--by", help="The name of the reviewer. The page defaults to your login name.", metavar="NAME"),
]
DrawId = Annotated[
    int | None,
    typer.Option(
        "--draw",
        help="The draw to open or to answer. Default: the one that matches the options or keys.",
        metavar="ID",
    ),
]
#: Options for the page.
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="The port of the page. 0 picks a free one.")]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Only print the address of the page.")]


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
    port: Port = 0,
    no_browser: NoBrowser = False,
    json_out: AsJson = False,
) -> None:
    """Review labels on a local page or in a file."""
    run_dir = run_of(run)
    if from_file is not None:
        _refuse_both("--from", to or sample or per_class or uncertain or disagreements or where)
        _take(run_dir, from_file, by, draw, json_out=json_out)
        return
    from pipeline.review import DrawOptions

    options = DrawOptions(sample, per_class, uncertain, disagreements, where, column, score, seed, blind)
    if draw is not None:
        _refuse_both("--draw", options)
    if to is None:
        _open_page(run_dir, options, draw, by, port, opens=not no_browser, json_out=json_out)
    else:
        _write(run_dir, options, to, draw, json_out=json_out)


def _refuse_both(option: str, others: object) -> None:
    """Fail if a new draw and something else are requested together, because one of them would not be done."""
    if others:
        fail(f"{option} makes no new draw: leave it out, or the options of the draw (--sample and the like)")


def _write(run_dir: Path, options: Any, to: Path, draw: int | None, *, json_out: bool) -> None:
    from pipeline.review import draw_to_file

    run_and_print(draw_to_file(run_dir, options, to, draw=draw), "draw_lines", json_out=json_out)


def _open_page(
    run_dir: Path, options: Any, draw: int | None, by: str | None, port: int, *, opens: bool, json_out: bool
) -> None:
    from pipeline.review import review_page
    from pipeline.show import page_lines, reviewed_lines

    def ready(facts: Mapping[str, Any]) -> None:
        print_result(facts, page_lines, json_out=json_out)
        if not json_out:
            echo("The page is for a browser on this machine only. Ctrl-C ends the review.")
        if opens and has_display():
            webbrowser.open(facts["address"])

    def done(facts: Mapping[str, Any]) -> None:
        print_result(facts, reviewed_lines, json_out=json_out)

    run_until_interrupted(review_page(run_dir, options, draw=draw, by=by, port=port, ready=ready, done=done))


def has_display() -> bool:
    """Whether a browser would be visible, that is, somebody uses this machine's screen and not a remote connection."""
    if sys.platform in ("darwin", "win32"):
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _take(run_dir: Path, file: Path, by: str | None, draw: int | None, *, json_out: bool) -> None:
    if by is None:
        fail("name the reviewer: --by NAME")
    from pipeline.review import take_answers

    run_and_print(take_answers(run_dir, file, by=by, draw=draw), "answers_lines", json_out=json_out)


@app.command("show", rich_help_panel=MEASURE)
def show_record(
    words: Annotated[
        list[str],
        typer.Argument(
            help="The run folder, or its config, and the key of the record: the value of input.key, or its place. "
            "Without a run: the latest run here.",
            metavar="[RUN|CONFIG] KEY",
        ),
    ],
    json_out: AsJson = False,
) -> None:
    """Show one record: its prompt, answers, cost, and corrections."""
    if len(words) > 2:
        fail(f"show shows one record: expected a run and a key, got {len(words)} words: {' '.join(words)}")
    *runs, key = words
    if not runs and ((Path(key) / "manifest.json").is_file() or (key.endswith(".toml") and Path(key).is_file())):
        fail(f"{key} is a run: name a record of it too, such as: labelpipe show {key} T-00123")
    run_dir = run_of(Path(runs[0]) if runs else None)
    from pipeline import review as people

    run_and_print(people.show_record(run_dir, key), "record_lines", json_out=json_out)


@app.command(rich_help_panel=MEASURE)
def rename(
    run: Annotated[Path, typer.Argument(help="The run folder, or its config.", metavar="RUN|CONFIG")],
    column: Annotated[str, typer.Argument(help="The label field.", metavar="COLUMN")],
    pairs: Annotated[list[str], typer.Argument(help="The old and the new label: account=login", metavar="OLD=NEW ...")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count the records that would change; change nothing.")
    ] = False,
    sets: Sets = None,
    output_dir: Output = None,
    json_out: AsJson = False,
) -> None:
    """Rename or merge labels in a run and its config, without calls."""
    settings = settings_of(run, sets, None, output_dir)
    names = exit_on_error(lambda: _pairs(settings, column, pairs))
    from pipeline.runner import rename as rename_labels

    run_and_print(rename_labels(settings, column, names, dry_run=dry_run), "renamed_lines", json_out=json_out)


def _pairs(settings: Settings, column: str, texts: list[str]) -> list[tuple[str, str]]:
    """Split each text into the old and the new name. If a label contains `=`, it decides where the old name ends."""
    from pipeline.parts import label_fields

    field = label_fields(settings).get(column)
    known = {str(value) for value in field.values} if field is not None else set[str]()
    pairs = []
    for text in texts:
        splits = [(text[:at], text[at + 1 :]) for at, sign in enumerate(text) if sign == "="]
        if not splits:
            fail(f"{text}: expected the old and the new name, like account=login")
        pairs.append(next((split for split in splits if split[0] in known), splits[0]))
    return pairs
