"""Commands that watch and control a run, and show a config."""

import shutil
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.application import (
    STEER,
    AsJson,
    RunOf,
    Sets,
    Target,
    app,
    config_app,
    echo,
    exit_on_error,
    fail,
    print_json,
    print_result,
    print_text,
    run_and_print,
    run_async,
    run_of,
    settings_of,
)

#: Moves the cursor up to the first line of the block, and clears the screen from there.
_BACK_UP = "\x1b[{lines}F\x1b[J"


@app.command(rich_help_panel=STEER)
def status(
    run: RunOf = None,
    json_out: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Redraw until the run has ended or you press Ctrl-C.")] = False,
    every_s: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between updates.", metavar="S")] = 1.0,
) -> None:
    """Show the state of a run, during the run or afterward."""
    run_dir = run_of(run)

    def read_status() -> Coroutine[Any, Any, Any]:
        from pipeline import runner

        return runner.status(run_dir)

    if watch:
        exit_on_error(lambda: _watch(read_status, json_out, every_s))
        return
    run_and_print(read_status(), "status_lines", json_out=json_out)


def _watch(read_status: Callable[[], Coroutine[Any, Any, Any]], json_out: bool, every_s: float) -> None:
    """Watch the run until it ends or the user presses Ctrl-C, which is not a failure."""
    import asyncio
    import signal
    from contextlib import suppress

    is_ending = False

    def end(_number: int, _frame: Any) -> None:
        nonlocal is_ending
        is_ending = True
        raise KeyboardInterrupt

    def read_once() -> Any:
        if is_ending:  # Ctrl-C came where exceptions are lost, such as in a loop that was closing
            raise KeyboardInterrupt
        return asyncio.run(read_status())

    with suppress(KeyboardInterrupt):
        signal.signal(signal.SIGINT, end)
        _redraw(read_once, json_out, every_s)


def _redraw(read_status: Callable[[], Mapping[str, Any]], json_out: bool, every_s: float) -> None:
    """Show the run until it ends or nobody reads it: in a terminal in the same place, else one block after another."""
    from pipeline import codec
    from pipeline.show import status_lines
    from pipeline.terminal import is_terminal, printable, printable_json, put

    line_count = 0
    while True:
        began_at = time.monotonic()
        facts = read_status()
        elapsed_s = time.monotonic() - began_at
        if json_out:
            text = printable_json(codec.dumps(facts).decode()) + "\n"
        elif is_terminal(sys.stdout):
            text, line_count = _frame(printable("\n".join(status_lines(facts))), over=line_count)
        else:
            text = printable("\n".join([f"{datetime.now().astimezone():%H:%M:%S}", *status_lines(facts), "", ""]))
        if put(sys.stdout, text) is not None or not facts["running"]:
            return
        # Reading a large ledger takes time, and watching a run must not slow it down.
        time.sleep(max(every_s - elapsed_s, 4 * elapsed_s))


def _frame(text: str, *, over: int) -> tuple[str, int]:
    """Return what draws the text over the last `over` lines, as far as it fits the terminal, and its number of lines.

    No line is longer than one of the terminal, because it would take two when it is drawn over.
    """
    from pipeline.terminal import colorize, supports_color, wrap_line

    size = shutil.get_terminal_size((100, 24))
    width = size.columns - 1
    lines = [part[:width] for line in text.split("\n") for part in wrap_line(line, width).split("\n")]
    lines = lines[: size.lines - 1]
    frame = "".join(f"{line}\n" for line in lines)
    back = _BACK_UP.format(lines=over) if over else ""
    return back + (colorize(frame) if supports_color(sys.stdout) else frame), len(lines)


@app.command(rich_help_panel=STEER)
def verify(
    run: RunOf = None,
    no_input: Annotated[bool, typer.Option("--no-input", help="Do not read the input again.")] = False,
    remote: Annotated[
        bool, typer.Option("--remote", help="Also read the addresses and databases that the run names.")
    ] = False,
    json_out: AsJson = False,
) -> None:
    """Verify a run from its files.

    The command checks that rows in = labelled + rejected + failed + pending, and that each key occurs once.
    """
    run_dir = run_of(run)
    from pipeline import runner

    report = run_async(runner.verify(run_dir, read_input=not no_input, remote=remote))
    print_result(report, lambda _: report.lines(), json_out=json_out)
    raise typer.Exit(0 if report.ok else 1)


@config_app.command("show")
def config_show(config: Target = None, sets: Sets = None, json_out: AsJson = False) -> None:
    """Print every value and its source as TOML. Secrets are shown only as set or not set."""
    settings = settings_of(config, sets)
    from pipeline.settings import explain, to_toml

    if json_out:
        print_json({row.key: {"value": row.value, "origin": row.origin} for row in explain(settings)})
    else:
        print_text(to_toml(settings).removesuffix("\n"))


# -- commands to a running session -------------------------------------------------------------------------------------


Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the run's answer.")]


@app.command(rich_help_panel=STEER)
def pause(run: RunOf = None, wait_s: Wait = 5.0) -> None:
    """Pause a run: send no more calls.

    Calls in flight finish, and the process keeps running.
    """
    _order(run, "pause", wait_s)


@app.command(rich_help_panel=STEER)
def resume(run: RunOf = None, wait_s: Wait = 5.0) -> None:
    """Continue a paused run."""
    _order(run, "resume", wait_s)


@app.command(rich_help_panel=STEER)
def drain(run: RunOf = None, wait_s: Wait = 5.0) -> None:
    """End a run after the calls in flight have finished.

    The same `labelpipe run` command resumes it.
    """
    _order(run, "drain", wait_s)


@app.command(name="set", rich_help_panel=STEER)
def set_live(
    words: Annotated[
        list[str],
        typer.Argument(
            help="The run folder or its config (default: the running one here), and a key with its value, such as "
            "limits.concurrency=16.",
            metavar="[RUN|CONFIG] KEY=VALUE",
        ),
    ],
    wait_s: Wait = 5.0,
) -> None:
    """Change a limit during a run.

    The command does not change the config file.
    """
    *runs, change = words
    key, sign, value = change.partition("=")
    if len(runs) > 1 or not sign or not key.strip():
        fail(f"set {' '.join(words)}: expected a run folder and KEY=VALUE, like limits.concurrency=16")
    _order(Path(runs[0]) if runs else None, "set", wait_s, key.strip(), value.strip())


def _order(run: Path | None, verb: str, wait_s: float, key: str | None = None, value: str | None = None) -> None:
    from pipeline.control import NO_ANSWER, await_answer, send

    run_dir = run_of(run, at_work=True)
    reply = exit_on_error(lambda: await_answer(send(run_dir, verb, key, value), wait_s))
    if reply is None:
        fail(f"{run_dir}: {NO_ANSWER}")
    echo(f"{run_dir}: {reply.text}")
    if not reply.ok:
        raise typer.Exit(2)
