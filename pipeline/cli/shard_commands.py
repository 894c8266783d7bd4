"""Commands for runs in shards: the lease server, one shard, all shards, and their merge."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from pipeline.cli.application import (
    LABEL,
    AsJson,
    Output,
    RunOf,
    Sets,
    Target,
    app,
    echo,
    fail,
    finish,
    resume_arguments,
    run_and_print,
    run_async,
    run_of,
    settings_of,
)

if TYPE_CHECKING:
    from pipeline.settings import Settings
    from pipeline.stats import RunSummary

DEFAULT_ENV = "LEASES_TOKEN"
TokenEnv = Annotated[
    str, typer.Option("--token-env", help="The environment variable that holds the lease server's token.")
]


def run_one_shard(
    load: Callable[[list[str], str], Settings],
    run: Path,
    shard: tuple[int, int],
    url: str,
    token_env: str,
    json_out: bool,
    **options: Any,
) -> NoReturn:
    """Run one shard of the run in this folder. `load` returns its settings, given more overrides and its folder."""
    from pipeline.leases import LeaseClient
    from pipeline.runner import RunOptions
    from pipeline.shards import label_shard

    token = _token(token_env)

    async def label() -> RunSummary:
        lease = LeaseClient(url, token, *shard)

        def options_for(base: Path) -> RunOptions:
            return RunOptions(command=resume_arguments(None), lease=lease, base=base, **options)

        return await label_shard(load, run, shard, lease, options_for, echo)

    finish(run_async(label()), json_out)


def merge_first(settings: Settings) -> None:
    """Merge the run's shards, if there are any, because the next step needs the run as one."""
    from pipeline.store import RunDir

    if RunDir(Path(settings.output.dir)).shards():
        from pipeline.shards import merge as merge_shards

        run_async(merge_shards(settings))


def parts_of(shard: str) -> tuple[int, int]:
    """Parse "3/16" into the shard and the number of shards."""
    number, _, shards = shard.partition("/")
    if not (number.isdigit() and shards.isdigit() and 1 <= int(number) <= int(shards)):
        fail(f"--shard {shard}: expected a shard and their number, such as 3/16 for the third of 16")
    return int(number), int(shards)


def _token(name: str) -> str:
    token = os.environ.get(name)
    if not token:
        fail(f"{name} is not set: put the lease server's token into that variable, or name another with --token-env")
    return token


@app.command(rich_help_panel=LABEL)
def leases(
    config: Target = None,
    shards: Annotated[
        int | None, typer.Option("--shards", min=1, help="How many shards there are.", metavar="N")
    ] = None,
    listen: Annotated[
        str, typer.Option("--listen", help="The address to listen on. Port 0 picks a free one.", metavar="HOST:PORT")
    ] = "127.0.0.1:7700",
    token_env: TokenEnv = DEFAULT_ENV,
    sets: Sets = None,
    output_dir: Output = None,
) -> None:
    """Run the lease server, which shares a run's limits among its shards."""
    settings = settings_of(config, sets, None, output_dir)
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit():
        fail(f"--listen {listen}: expected HOST:PORT, such as 127.0.0.1:7700")
    token = _token(token_env)

    async def serve() -> None:
        from pipeline.shards import serve_leases

        await serve_leases(settings, shards, host, int(port), token, echo)

    run_async(serve())


@app.command(rich_help_panel=LABEL)
def merge(config: RunOf = None, sets: Sets = None, output_dir: Output = None, json_out: AsJson = False) -> None:
    """Merge the shards of a run into one ledger and one set of files.

    You can merge at any time, even while shards are running.
    """
    settings = settings_of(config or run_of(None), sets, None, output_dir)
    from pipeline.shards import merge as merge_shards

    run_and_print(merge_shards(settings), "merged_lines", json_out=json_out)
