"""Commands to a run that is going on, from another terminal."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.application import STEER, RunOf, app, echo, exit_on_error, fail, run_of

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
    *named, change = words
    key, sign, value = change.partition("=")
    if len(named) > 1 or not sign or not key.strip():
        fail(f"set {' '.join(words)}: expected a run folder and KEY=VALUE, like limits.concurrency=16")
    _order(Path(named[0]) if named else None, "set", wait_s, key.strip(), value.strip())


def _order(run: Path | None, verb: str, wait_s: float, key: str | None = None, value: str | None = None) -> None:
    from pipeline.control import NO_ANSWER, await_answer, send

    run_dir = run_of(run, at_work=True)
    reply = exit_on_error(lambda: await_answer(send(run_dir, verb, key, value), wait_s))
    if reply is None:
        fail(f"{run_dir}: {NO_ANSWER}")
    echo(f"{run_dir}: {reply.text}")
    if not reply.ok:
        raise typer.Exit(2)
