"""Commands that use the labels: export them, train on them, and show them on a page."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.application import (
    MEASURE,
    STEER,
    USE,
    AsJson,
    RunOf,
    app,
    echo,
    exit_on_error,
    fail,
    print_json,
    print_text,
    run_and_print,
    run_of,
    run_until_interrupted,
)
from pipeline.cli.measure_commands import GoldSets, add_read_hint

Table = Annotated[str | None, typer.Option("--table", help="The database table. Default: labels.", metavar="NAME")]
Split = Annotated[
    str | None,
    typer.Option("--split", help="Shares of train, val, and test, or of train and test. Default: 80/10/10."),
]
Seed = Annotated[int, typer.Option("--seed", help="The same seed gives the same result.")]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        help="Keep the shares of this label field equal in all files. Default: the first one with classes.",
        metavar="FIELD",
    ),
]
Group = Annotated[
    str | None,
    typer.Option("--group", help="Keep records with the same value in this column together.", metavar="COLUMN"),
]
Near = Annotated[
    str, typer.Option("--near-duplicates", help="Keep texts together that are this similar; off: only equal texts.")
]
Gold = Annotated[Path | None, typer.Option("--gold", help="Keep the records of this gold file out of train.")]
Where = Annotated[
    str | None, typer.Option("--where", help="Export only matching rows: 'agreement == 1 or reviewed'", metavar="EXPR")
]
Format = Annotated[str | None, typer.Option("--format", help="csv, jsonl or parquet. Default: the run's format.")]
Text = Annotated[str | None, typer.Option("--text", help="Write only the label and this field.", metavar="FIELD")]
Chat = Annotated[bool, typer.Option("--chat", help="Write fine-tuning examples: the prompt and the function call.")]
Hf = Annotated[bool, typer.Option("--hf", help="Add a Hugging Face dataset card.")]
#: No longer needed. Commands with this option still work.
Simulated = Annotated[bool, typer.Option("--simulated", hidden=True)]


@app.command(rich_help_panel=USE)
def export(
    run: RunOf = None,
    to: Annotated[
        str | None,
        typer.Option("--to", help="A folder, or the URL of a database. Default: the table in the run's [output.sql].",
                     metavar="FOLDER|URL"),
    ] = None,
    table: Table = None,
    split: Split = None,
    seed: Seed = 0,
    by: By = None,
    group: Group = None,
    near_duplicates: Near = "0.8",
    gold: Gold = None,
    sets: GoldSets = None,
    where: Where = None,
    format_: Format = None,
    text: Text = None,
    chat: Chat = False,
    hf: Hf = False,
    simulated: Simulated = False,
    json_out: AsJson = False,
) -> None:  # fmt: skip
    """Export the labels as training data or into a database table.

    Run the command again to bring the files or the table up to date. You can use it during a run.
    """
    run_dir = run_of(run)
    values: dict[str, Any] = {
        "split": split,
        "by": by,
        "group": group,
        "gold": gold,
        "where": where,
        "format": format_,
        "text": text,
    }
    words = [f"--{name}" for name, value in {**values, "set": sets}.items() if value is not None]
    words += [f"--{name}" for name, is_set in (("chat", chat), ("hf", hf), ("simulated", simulated)) if is_set]
    if to is None or "://" in to:
        if words:
            fail(f"{words[0]} is for an export into a folder: name one with --to, such as --to data/")
        _into_table(run_dir, to, table, json_out)
        return
    if table is not None:
        fail(f"--table is for a database, and --to {to} is none: its URL has ://, like sqlite:///labels.db")

    def options() -> Any:
        from pipeline.exports import SPLIT, DataOptions, parse_similarity, parse_split

        near = parse_similarity(near_duplicates)
        values["split"] = SPLIT if split is None else parse_split(split)
        return DataOptions(**values, sets=sets or (), seed=seed, near_duplicates=near, chat=chat, hf=hf)

    _into_folder(run_dir, to, exit_on_error(options), json_out)


def _into_table(run_dir: Path, to: str | None, table: str | None, json_out: bool) -> None:
    from pipeline import runner

    run_and_print(runner.export(run_dir, to, table=table), "export_lines", json_out=json_out)


def _into_folder(run_dir: Path, to: str, options: Any, json_out: bool) -> None:
    async def write() -> Any:
        from pipeline.exports import export_data

        command = ["export", str(run_dir), "--to", to, "--gold", str(options.gold)]
        with add_read_hint(command, options.sets):
            return await export_data(run_dir, to, options)

    run_and_print(write(), "data_lines", json_out=json_out)


@app.command(rich_help_panel=MEASURE)
def baseline(
    run: RunOf = None,
    by: Annotated[
        str | None,
        typer.Option("--by", help="The label field to predict. Default: the first one with classes.", metavar="FIELD"),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", help="The field to predict it from. Default: the prompt's fields.", metavar="FIELD"),
    ] = None,
    seed: Seed = 0,
    doubts: Annotated[int, typer.Option("--doubts", min=1, help="How many doubts to list.", metavar="N")] = 100,
    to: Annotated[
        Path | None,
        typer.Option("--to", help="Write the doubtful labels to this file, for review.", metavar="FILE"),
    ] = None,
    json_out: AsJson = False,
) -> None:  # fmt: skip
    """Train a simple classifier to see if the labels can be learned and which are doubtful."""
    run_dir = run_of(run)
    from pipeline import exports

    options = exports.BaselineOptions(by, text, seed, doubts, to)
    run_and_print(exports.baseline(run_dir, options), "baseline_lines", json_out=json_out)


# -- pages -------------------------------------------------------------------------------------------------------------


@app.command(rich_help_panel=USE)
def report(
    run: RunOf = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="The file to write. Default: report.html in the run folder.")
    ] = None,
    json_out: AsJson = False,
) -> None:
    """Write the report page: labels, quality, speed, and cost."""
    run_dir = run_of(run)
    from pipeline.report import write_report

    run_and_print(write_report(run_dir, to), "report_lines", json_out=json_out)


@app.command(rich_help_panel=STEER)
def watch(
    run: RunOf = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="The port. 0 picks a free one.")] = 0,
    json_out: AsJson = False,
) -> None:
    """Serve the report page during a run."""
    from pipeline.report import watch as serve

    run_dir = run_of(run, at_work=True)

    def ready(address: str) -> None:
        if json_out:
            print_json({"address": address})
        else:
            print_text(f"The report of {run_dir}: {address}")
            echo("The page updates itself. Only browsers on this machine can open it. Ctrl-C ends it.")

    def ended() -> None:
        echo("The run has ended. The page is served until Ctrl-C.")

    run_until_interrupted(serve(run_dir, port=port, ready=ready, ended=ended))
