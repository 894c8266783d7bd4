"""Defines the app, the options that commands share, and the functions between the command line and the calls."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from pipeline.stats import RunSummary

_T = TypeVar("_T")

EXIT_CODES = """
Exit codes: 0 all records labeled · 1 finished, some records have no label · 2 cannot start ·
3 stopped early · 129 hung up · 130 interrupted. After 3, 129, and 130 the same command resumes.
"""

#: The exit code if a requested output could not be written, most likely because the disk is full.
EXIT_NOT_WRITTEN = 3

DOCS_URL = "https://github.com/labelpipe/labelpipe/tree/main/docs"

#: The groups of commands in --help, in order.
BEFORE, LABEL, STEER = "Before a run", "Label", "Watch and control a run"
MEASURE, USE, MORE = "Measure and correct labels", "Use labels", "More"
#: These come first in their group, in the order of their use; the others follow as they are defined.
_FIRST = ("run", "retry", "replay", "status", "watch", "verify", "evaluate", "compare", "try", "baseline", "show",
          "review", "rename", "certify", "export", "report")  # fmt: skip

#: The names of our commands in other tools.
COMMAND_HINTS = {
    "stop": "drain", "start": "run", "label": "run", "continue": "run", "new": "init",
    "create": "init", "validate": "check", "lint": "check", "estimate": "plan", "cost": "plan",
    "test": "preview", "example": "demo", "eval": "evaluate", "score": "evaluate", "accuracy": "evaluate",
    "diff": "compare", "trial": "try", "help": "-h", "version": "--version",
}  # fmt: skip


class Commands(TyperGroup):
    """The commands in groups. An unknown command gets a suggestion."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group, all with the same width."""
        order = {name: place for place, name in enumerate(_FIRST)}
        names = sorted(self.commands, key=lambda name: order.get(name, len(order)))
        commands = {name: self.commands[name] for name in names if not self.commands[name].hidden}
        wide = max(map(len, commands))
        for title in (BEFORE, LABEL, STEER, MEASURE, USE, MORE):
            rows = [
                (f"{name:<{wide}}", command.get_short_help_str(limit=200))
                for name, command in commands.items()
                if getattr(command, "rich_help_panel", None) == title
            ]
            with formatter.section(title):
                formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command. If a path is given instead, report what to do with it."""
        path = Path(args[0])
        if args[0] not in self.commands and path.exists():
            ctx.fail(f"{path} is not a command. {_what_to_do_with(path)}")
        if args[0] in COMMAND_HINTS:
            ctx.fail(f"No such command '{args[0]}'. Did you mean '{COMMAND_HINTS[args[0]]}'?")
        return super().resolve_command(ctx, args)


def _what_to_do_with(path: Path) -> str:
    from pipeline.targets import is_run, looks_like_config

    if is_run(path):
        return f"See that run with: labelpipe status {path}"
    verb = "run" if looks_like_config(path) else "init"
    return f"{'Label with that config' if verb == 'run' else 'Write a config for it'}: labelpipe {verb} {path}"


app = typer.Typer(
    name="labelpipe",
    cls=Commands,
    help="Label a large file of records with a language model. labelpipe makes one function call per record, stays "
    "within your rate limits, and writes a CSV. After any interruption, the same command resumes.",
    epilog=f"{EXIT_CODES}\n\nTo try it without a key, run: labelpipe demo. Documentation: {DOCS_URL}",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Show a config.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config_app, name="config", rich_help_panel=BEFORE)

Target = Annotated[
    Path | None,
    typer.Argument(
        help="A config (a TOML file), or the folder of a run that was started with it.", metavar="CONFIG|RUN"
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="Override a key of the config: --set limits.concurrency=8", metavar="KEY=VALUE"),
]
Input = Annotated[str | None, typer.Option("--input", help="Short for --set input.path=...")]
Output = Annotated[str | None, typer.Option("--output", help="Short for --set output.dir=...")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="Take only the first N records.", metavar="N")]
Sample = Annotated[
    int | None,
    typer.Option("--sample", min=1, help="Take only N records, drawn at random from all of them.", metavar="N"),
]
KeysFile = Annotated[
    str | None, typer.Option("--keys", help="Take only the records whose keys are in this file.", metavar="FILE")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
RunOf = Annotated[
    Path | None,
    typer.Argument(
        help="The run folder, such as runs/sentiment, or its config. Default: the latest run here.",
        metavar="[RUN|CONFIG]",
    ),
]
Relabel = Annotated[bool, typer.Option("--relabel", help="Label records again if a change affects them.")]
KeepCorrections = Annotated[bool, typer.Option("--keep-corrections", help="With --relabel: keep people's corrections.")]
DropCorrections = Annotated[
    bool, typer.Option("--drop-corrections", help="With --relabel: take people's corrections back.")
]
Keep = Annotated[bool, typer.Option("--keep", help="Keep existing labels even though something has changed.")]


def _version(is_wanted: bool) -> None:
    if is_wanted:
        from pipeline.version import __version__

        print_text(f"labelpipe {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options before a command."""


# -- between words and calls -------------------------------------------------------------------------------------


def settings_of(
    target: Path | None,
    sets: list[str] | None,
    input_path: str | None = None,
    output_dir: str | None = None,
    limit: int | None = None,
    *,
    sample: int | None = None,
    keys: str | None = None,
) -> Settings:
    from pipeline.targets import describe_targets, load_settings

    options: dict[str, dict[str, Any]] = {
        "input": {"path": input_path, "limit": limit, "sample": sample, "keys": keys},
        "output": {"dir": output_dir},
    }
    direct = {
        table: present
        for table, values in options.items()
        if (present := {key: value for key, value in values.items() if value is not None})
    }

    def load() -> Settings:
        if target is None:  # labeling costs money, so the user must name what to label
            fail(f"name a config, or the folder of a run. {describe_targets()}")
        settings = load_settings(target, sets or [], **direct)
        settings.need_input()
        return settings

    return exit_on_error(load)


def run_of(target: Path | None, *, at_work: bool = False) -> Path:
    """Return the run folder, and report which one it is if the user named none."""
    from pipeline.targets import find_run

    run_dir = exit_on_error(lambda: find_run(target, at_work=at_work))
    if target is None:
        echo(f"{run_dir} is the latest run here.")
    return run_dir


def start_over(settings: Settings, *, yes: bool) -> None:
    from pipeline.runner import describe_existing_run, move_aside

    there = run_async(describe_existing_run(settings))
    if not there:
        return
    if not yes:
        if not sys.stdin.isatty():
            fail(f"{there} Nobody can be asked here: give --yes to start over.")
        if not typer.confirm(f"{there} Move it aside and start over?", err=True):
            fail("nothing was done")
    echo(f"Moved the old run to {exit_on_error(lambda: move_aside(settings))}.")


def corrections_of(settings: Settings, *, relabel: bool, keep: bool, drop: bool) -> str:
    """Return what happens to people's answers if records are labeled again. Asks if there is a terminal."""
    if keep and drop:
        fail("--keep-corrections and --drop-corrections: expected one of them")
    if keep or drop or not relabel:
        return "keep" if keep else "drop" if drop else ""
    from pipeline.runner import count_corrections

    count = exit_on_error(lambda: count_corrections(settings.output.dir))
    if not count or not sys.stdin.isatty():
        return ""
    records = "1 record" if count == 1 else f"{count:,} records"
    question = f"People have corrected or confirmed {records} of this run. Keep their answers in the rows?"
    return "keep" if typer.confirm(question, default=True, err=True) else "drop"


def label_input(
    settings: Settings, json_out: bool, *, run: Path | None, shards: int | None = None, **options: Any
) -> NoReturn:
    """Run a session, or all shards on this machine, and exit with its exit code."""
    with importing():
        from pipeline.providers import load_sdk
        from pipeline.runner import RunOptions, arun

        if shards is None:
            load_sdk()

    async def label() -> RunSummary:
        after = report_after if settings.output.report else None
        all_options = RunOptions(command=resume_arguments(run), after=after, **options)
        if shards is None:
            return await arun(settings, all_options)
        from pipeline.shards import run_in_shards

        return await run_in_shards(settings, shards, all_options)

    finish(run_async(label()), json_out)


async def report_after(summary: RunSummary) -> tuple[str, str]:
    """Write the report of a run that ends. The late import lets the first call start half a second earlier."""
    from pipeline.report import after_run

    return await after_run(summary)


def resume_arguments(run: Path | None) -> str:
    """Return the command's arguments, without one-time options and without secrets.

    `run` is the run to resume if the arguments name none.
    """
    from pipeline.settings import redacted_command

    choices = ("--keep", "--keep-corrections", "--drop-corrections")
    once = (*choices, "--fresh", "--yes", "-y", "--relabel", "--json", "--no-wait")
    words = [word for word in sys.argv[2:] if word not in once]
    if "--only" in words:
        at = words.index("--only")
        del words[at : at + 2]
    words = words if run is None else [str(run), *words]
    return redacted_command([word for word in words if not word.startswith("--only=")])


@contextmanager
def importing() -> Iterator[None]:
    """Speed up many imports by a quarter: their objects are never collected as garbage, now or later."""
    import gc

    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(50_000, 10, 10)  # not 700: a block of records makes more, which all die together
        gc.enable()


def finish(summary: RunSummary, json_out: bool) -> NoReturn:
    from pipeline.show import closing_lines

    if json_out:
        # The run's own exit code: its labels and summary.json exist.
        print_json(summary.as_dict(), code=summary.exit_code)
    else:
        echo("\n".join(closing_lines(summary)))
    raise typer.Exit(summary.exit_code)


def run_async(work: Coroutine[Any, Any, _T]) -> _T:
    import asyncio

    return exit_on_error(lambda: asyncio.run(work))


def run_until_interrupted(work: Coroutine[Any, Any, Any]) -> None:
    """Run the work until it ends or the user presses Ctrl-C, which is not a failure."""
    import asyncio
    from contextlib import suppress

    def run() -> None:
        with suppress(KeyboardInterrupt):
            asyncio.run(work)

    exit_on_error(run)


def exit_on_error(work: Callable[[], _T]) -> _T:
    """Return the result of `work`. Our errors become a message and an exit code; others are bugs with a traceback."""
    from asyncio import CancelledError

    from pipeline.errors import HungUpError, InterruptedRunError, LabelpipeError, SetupError

    try:
        return work()
    except typer.Exit:
        raise
    except InterruptedRunError as error:
        fail("interrupted; the same command resumes it", code=129 if isinstance(error, HungUpError) else 130)
    except SetupError as error:
        fail(str(error))
    except LabelpipeError as error:
        fail(str(error), code=3)
    except (KeyboardInterrupt, CancelledError):
        fail("interrupted; the same command resumes it", code=130)
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, AssertionError, AttributeError):
        import traceback

        echo(traceback.format_exc())
        fail("this is a bug, above is where. What the ledger holds is safe; the same command resumes it", code=3)


def fail(message: str, *, code: int = 2) -> NoReturn:
    echo(f"labelpipe: {message}")
    raise typer.Exit(code)


def echo(text: str) -> None:
    """Print a text for people to stderr. If nobody reads it, nothing else changes."""
    from pipeline.terminal import format_for_stream, printable, put_soon

    put_soon(sys.stderr, format_for_stream(printable(text), sys.stderr) + "\n")


def print_text(text: str) -> None:
    """Print a requested text. Ends the command if it cannot be written."""
    from pipeline.terminal import format_for_stream, printable

    _print(format_for_stream(printable(text), sys.stdout))


def print_result(result: Any, lines: Callable[[Any], Iterable[str]], *, json_out: bool) -> None:
    """Print the result of a command: as JSON, or formatted by `lines`."""
    if json_out:
        print_json(result if isinstance(result, Mapping) else result.as_dict())
    else:
        print_text("\n".join(lines(result)))


def run_and_print(work: Coroutine[Any, Any, Any], lines: str, *, json_out: bool) -> Any:
    """Print the result of `work` and return it. `lines` is the name of the function in `show` that formats it."""
    result = run_async(work)
    from pipeline import show as views

    print_result(result, getattr(views, lines), json_out=json_out)
    return result


def print_json(value: Any, *, code: int = EXIT_NOT_WRITTEN) -> None:
    """Print a value as JSON; `code` is the exit code if it cannot be written."""
    from pipeline import codec
    from pipeline.terminal import printable_json

    _print(printable_json(codec.dumps(value).decode()), code)


def _print(text: str, code: int = EXIT_NOT_WRITTEN) -> None:
    """Print to stdout. A reader that stops early (`| head`) is no error; a full disk is one."""
    from pipeline.terminal import put

    error = put(sys.stdout, f"{text}\n")
    if error is not None and not isinstance(error, BrokenPipeError):
        fail(f"the output could not be written: {error.strerror or error}", code=code)
