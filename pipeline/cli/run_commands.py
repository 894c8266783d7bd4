"""Commands on a config: from the first look at a file to labels, and again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.application import (
    BEFORE,
    LABEL,
    AsJson,
    DropCorrections,
    Input,
    Keep,
    KeepCorrections,
    KeysFile,
    Limit,
    Output,
    Relabel,
    RunOf,
    Sample,
    Sets,
    Target,
    app,
    corrections_of,
    echo,
    exit_on_error,
    fail,
    finish,
    label_input,
    print_json,
    print_text,
    run_and_print,
    run_async,
    run_of,
    settings_of,
    start_over,
)
from pipeline.cli.shard_commands import DEFAULT_ENV, TokenEnv, merge_first, parts_of, run_one_shard

if TYPE_CHECKING:
    from pipeline.settings import Settings


@app.command(rich_help_panel=BEFORE)
def init(
    path: Annotated[str, typer.Argument(help="The file to label.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="Where to write the config. Default: config/NAME.toml.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing config.")] = False,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", help="Set a key of [input]: --set input.encoding=cp1252", metavar="KEY=VALUE"),
    ] = None,
) -> None:
    """Read a file and write a config for you to edit."""
    from pipeline.targets import refuse_as_input

    exit_on_error(lambda: refuse_as_input(path))
    settings, keys = exit_on_error(lambda: _first_settings(path, sets or []))

    async def write() -> Any:
        from pipeline.errors import InputError
        from pipeline.parts import sources_of
        from pipeline.scaffold import command_with_answer, write_config
        from pipeline.threads import in_daemon

        try:
            sources = await in_daemon(lambda: sources_of(settings))
            return await write_config(path, sources, to, input_keys=keys, force=force, quiet=False)
        except InputError as error:
            command = ["labelpipe", "init", path, *(["--to", str(to)] if to else []), *(["--force"] * force)]
            again = command_with_answer(str(error), command, sets or [])
            if again is None:
                raise
            raise InputError(f"{error}\nTo set it: {again}") from error

    draft = run_async(write())
    target = draft.path
    echo("\n".join(["Found:", *(f"  {line}" for line in draft.description)]))
    echo(f"Wrote {target}. {'Look at it' if draft.has_labels else 'Put your labels into it'}, then:")
    echo(f"  labelpipe check   {target}")
    echo(f"  labelpipe preview {target} -n 5")
    echo(f"  labelpipe run     {target}")


def _first_settings(path: str, sets: list[str]) -> tuple[Settings, dict[str, Any]]:
    """Return the settings that read the input before there is a config, and the keys of [input] from --set."""
    from pipeline.errors import SetupError
    from pipeline.parts import input_settings
    from pipeline.scaffold import guess_format

    for key in (each.partition("=")[0].strip() for each in sets if "=" in each):
        if key == "input.path":
            raise SetupError("--set input.path: init takes the path as its argument")
        if not key.startswith("input."):
            raise SetupError(f"--set {key}: init takes only keys of [input]; put this one into the config")
    settings, keys = input_settings(path, sets)
    if "input.format" not in settings.origins() and (file_format := guess_format(path)):
        settings, keys = input_settings(path, [f"input.format={file_format}", *sets])
    values = settings.input.model_dump(mode="json")
    return settings, {name: values[name] for name in (key.removeprefix("input.") for key in keys)}


@app.command(rich_help_panel=BEFORE)
def check(
    config: Target = None,
    sets: Sets = None,
    input_path: Input = None,
    output_dir: Output = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not contact the server.")] = False,
    json_out: AsJson = False,
) -> None:
    """Find mistakes before you spend anything."""
    settings = settings_of(config, sets, input_path, output_dir)
    from pipeline import planner
    from pipeline.show import check_lines

    checks = run_async(planner.check(settings, online=not offline, quiet=json_out))

    if json_out:
        rows = [{"name": one.name, "ok": one.ok, "detail": one.detail, "blocks": one.blocks} for one in checks]
        card = next((one.card for one in checks if one.card is not None), None)
        print_json({"ok": all(one.ok is not False for one in checks), "checks": rows, "server": card})
    else:
        print_text("\n".join(check_lines(checks)))
    raise typer.Exit(2 if any(one.ok is False for one in checks) else 0)


@app.command(rich_help_panel=BEFORE)
def preview(
    config: Target = None,
    number: Annotated[
        int | None,
        typer.Option("-n", min=1, help="How many of the first records. Default: 5, or 0 with --key or --sample."),
    ] = None,
    key: Annotated[list[str] | None, typer.Option("--key", help="The record with this key.", metavar="K")] = None,
    keys: KeysFile = None,
    sample: Annotated[
        int | None, typer.Option("--sample", min=1, help="A sample of N records from the whole input.", metavar="N")
    ] = None,
    prompt: Annotated[bool, typer.Option("--prompt", help="Show what would be sent; send nothing.")] = False,
    sets: Sets = None,
    input_path: Input = None,
    json_out: AsJson = False,
) -> None:
    """Label a few records and show them, without writing anything."""
    settings = settings_of(config, sets, input_path, keys=keys)
    first = number if number is not None else 0 if key or sample else 5
    from pipeline import planner
    from pipeline.show import preview_facts, preview_lines

    result = run_async(planner.preview(settings, first, keys=key or (), sample=sample or 0, prompt=prompt))

    if json_out:
        print_json(preview_facts(result))
    else:
        print_text("\n".join(preview_lines(result)))
    raise typer.Exit((2 if result.hopeless else 3) if result.stopped else 0)


@app.command(rich_help_panel=BEFORE)
def plan(
    config: Target = None,
    pilot: Annotated[
        int, typer.Option("--pilot", min=1, help="How many records to draw and label first. The run keeps them.")
    ] = 20,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Use the built-in endpoint, without a key and at no cost.")
    ] = False,
    records: Annotated[
        int | None,
        typer.Option("--records", min=1, help="How many records to rehearse. Default: about a minute's worth."),
    ] = None,
    rpm: Annotated[
        int | None, typer.Option("--rpm", min=1, help="Requests per minute of your tier, for --rehearse.")
    ] = None,
    tpm: Annotated[
        int | None, typer.Option("--tpm", min=1, help="Tokens per minute of your tier, for --rehearse.")
    ] = None,
    rpd: Annotated[
        int | None, typer.Option("--rpd", min=1, help="Requests per day of your tier, for --rehearse.")
    ] = None,
    sets: Sets = None,
    input_path: Input = None,
    output_dir: Output = None,
    limit: Limit = None,
    sample: Sample = None,
    keys: KeysFile = None,
    json_out: AsJson = False,
) -> None:
    """Label a pilot and estimate the full run.

    The estimate covers tokens, cost, time, and the limit that binds.
    """
    if not rehearse and any(value is not None for value in (records, rpm, tpm, rpd)):
        fail("--records, --rpm, --tpm and --rpd are for a rehearsal: add --rehearse")
    settings = settings_of(config, sets, input_path, output_dir, limit, sample=sample, keys=keys)
    from pipeline import planner
    from pipeline.facts import Tier

    if rehearse:
        tier = Tier(requests_per_minute=rpm, tokens_per_minute=tpm, requests_per_day=rpd)
        rehearsed = planner.rehearse_plan(settings, records, tier, pilot=pilot, quiet=json_out)
        run_and_print(rehearsed, "rehearsal_lines", json_out=json_out)
        return
    result = run_and_print(planner.plan(settings, pilot, quiet=json_out), "plan_lines", json_out=json_out)
    nobody = result.looked_at and result.without_label == result.looked_at
    raise typer.Exit(1 if nobody else 0)


@app.command(rich_help_panel=LABEL)
def run(
    config: Target = None,
    sets: Sets = None,
    input_path: Input = None,
    output_dir: Output = None,
    limit: Limit = None,
    sample: Sample = None,
    keys: KeysFile = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over and move the old folder aside.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    relabel: Relabel = False,
    keep: Keep = False,
    keep_corrections: KeepCorrections = False,
    drop_corrections: DropCorrections = False,
    shards: Annotated[
        int | None,
        typer.Option("--shards", min=1, max=1024, help="Label in N processes that share the limits.", metavar="N"),
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="For --shards: local, or ray for the cluster that RAY_ADDRESS names.")
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", help="Label one shard only: 3/16 is the third of 16.", metavar="K/N")
    ] = None,
    leases: Annotated[
        str | None, typer.Option("--leases", help="For --shard: the address of the lease server.", metavar="URL")
    ] = None,
    token_env: TokenEnv = DEFAULT_ENV,
    no_wait: Annotated[
        bool,
        typer.Option("--no-wait", help="In the batch lane: send and collect what is possible now, then exit with 3."),
    ] = False,
    json_out: AsJson = False,
) -> None:
    """Label the input; the same command resumes."""
    sets = [*(sets or []), *([] if engine is None else [f"scale.engine={engine}"])]
    settings = settings_of(config, sets, input_path, output_dir, limit, sample=sample, keys=keys)
    _refuse_mixed(shards, shard, leases, fresh=fresh)
    if fresh:
        start_over(settings, yes=yes)
    corrections = corrections_of(settings, relabel=relabel, keep=keep_corrections, drop=drop_corrections)
    batches = "no_wait" if no_wait else "wait"
    options: dict[str, Any] = {"relabel": relabel, "keep": keep, "corrections": corrections, "batches": batches}
    if shard is not None and leases is not None:

        def load(words: list[str], folder: str) -> Settings:
            return settings_of(config, [*sets, *words], input_path, folder, limit, sample=sample, keys=keys)

        run_one_shard(load, Path(settings.output.dir), parts_of(shard), leases, token_env, json_out, **options)
    shards = shards or settings.scale.shards
    if shards is None and engine is not None:
        fail("--engine says what starts the shards, and there are none: add --shards N")
    label_input(settings, json_out, run=None, shards=shards, **options)


def _refuse_mixed(shards: int | None, shard: str | None, leases: str | None, *, fresh: bool) -> None:
    if shard is not None and fresh:
        fail("--fresh would move the other shards aside as well: move the run folder, or choose another with --output")
    if shards is not None and (shard is not None or leases is not None):
        fail("--shards starts all shards and their lease server; --shard and --leases are for one that you start")
    if (shard is None) != (leases is None):
        fail("--shard and --leases belong together: --shard 3/16 --leases http://HOST:PORT")


@app.command(rich_help_panel=LABEL)
def cancel(config: RunOf = None, sets: Sets = None, output_dir: Output = None, json_out: AsJson = False) -> None:
    """Cancel open batches and collect what they have answered.

    `labelpipe run` asks for the remaining records again.
    """
    run = run_of(None) if config is None else None
    settings = settings_of(config or run, sets, None, output_dir)
    merge_first(settings)
    label_input(settings, json_out, run=run, batches="cancel")


@app.command(rich_help_panel=LABEL)
def retry(
    config: RunOf = None,
    only: Annotated[
        str | None,
        typer.Option("--only", help="Codes, such as timeout,invalid_label. Default: every record without a label."),
    ] = None,
    sets: Sets = None,
    input_path: Input = None,
    output_dir: Output = None,
    limit: Limit = None,
    relabel: Relabel = False,
    keep: Keep = False,
    keep_corrections: KeepCorrections = False,
    drop_corrections: DropCorrections = False,
    json_out: AsJson = False,
) -> None:
    """Ask again for failed and rejected records."""
    latest = run_of(None) if config is None else None
    settings = settings_of(config or latest, sets, input_path, output_dir, limit)
    codes = frozenset(code.strip() for code in only.split(",") if code.strip()) if only else frozenset[str]()
    corrections = corrections_of(settings, relabel=relabel, keep=keep_corrections, drop=drop_corrections)
    options: dict[str, Any] = {
        "retry": True,
        "retry_codes": codes,
        "relabel": relabel,
        "keep": keep,
        "corrections": corrections,
    }
    label_input(settings, json_out, run=latest, **options)


@app.command(rich_help_panel=LABEL)
def replay(config: RunOf = None, sets: Sets = None, output_dir: Output = None, json_out: AsJson = False) -> None:
    """Read the stored answers again, without calls.

    Use the command after you fix a callback or change the columns. It writes the files again.
    """
    settings = settings_of(config or run_of(None), sets, None, output_dir)
    from pipeline import runner
    from pipeline.report import after_run

    finish(run_async(runner.replay(settings, after=after_run if settings.output.report else None)), json_out)
