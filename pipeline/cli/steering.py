"""Commands to a run that is going on, from another terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.frame import RunFolder, app, fail, guarded, say

Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the run's answer.")]


@app.command()
def pause(run_dir: RunFolder, wait_s: Wait = 5.0) -> None:
    """Let no further call leave; what is in flight ends. The run stays up."""
    _order(run_dir, "pause", wait_s)


@app.command()
def resume(run_dir: RunFolder, wait_s: Wait = 5.0) -> None:
    """Let a paused run go on."""
    _order(run_dir, "resume", wait_s)


@app.command()
def drain(run_dir: RunFolder, wait_s: Wait = 5.0) -> None:
    """End the run once what is in flight has ended; the same command resumes it."""
    _order(run_dir, "drain", wait_s)


@app.command(name="set")
def set_live(
    run_dir: RunFolder,
    change: Annotated[str, typer.Argument(help="Like limits.concurrency=16.", metavar="KEY=VALUE")],
    wait_s: Wait = 5.0,
) -> None:
    """Change a limit while the run goes on; the config file stays as it is."""
    key, sign, value = change.partition("=")
    if not sign or not key.strip():
        fail(f"{change}: expected KEY=VALUE, like limits.concurrency=16")
    _order(run_dir, "set", wait_s, key.strip(), value.strip())


def _order(run_dir: RunFolder, verb: str, wait_s: float, key: str | None = None, value: str | None = None) -> None:
    from pipeline.control import NO_ANSWER, await_answer, send

    reply = guarded(lambda: await_answer(send(run_dir, verb, key, value), wait_s))
    if reply is None:
        fail(f"{run_dir}: {NO_ANSWER}")
    say(f"{run_dir}: {reply.text}")
    if not reply.ok:
        raise typer.Exit(2)
