"""Drives a run in shards: starts the lease server and the processes, shows their progress, and merges the results."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.batches import BatchesOpenError, BatchMode, OpenBatches, return_hint
from pipeline.engine import StopSwitch, interruption, under
from pipeline.errors import ConfigError, LabelpipeError, SetupError
from pipeline.leases import LeaseService, stopped_error
from pipeline.limits import BudgetReachedError
from pipeline.parts import is_simulated, sources_of, task_of
from pipeline.progress import Progress, Snapshot
from pipeline.readers import ReadProgress
from pipeline.records import Status
from pipeline.runner import (
    RunOptions,
    arun,
    background_tasks,
    count_outcomes,
    job_digest,
    print_opening,
    read_live,
    refuse_open_batches,
)
from pipeline.settings import Settings
from pipeline.shards.coordinator import coordinator
from pipeline.shards.merging import MergedError, join
from pipeline.shards.orders import Orders
from pipeline.shards.plan import (
    BASE,
    FOLDER,
    ShardPlan,
    folder_setting,
    make_folder,
    read_plan,
    refuse_other_count,
    shard_overrides,
    write_plan,
)
from pipeline.shards.processes import Processes, Shard, Start, start_here
from pipeline.shards.raycluster import in_ray
from pipeline.shards.snapshots import save_base
from pipeline.stats import RunSummary
from pipeline.store import BatchBook, Ledger, Part, RunDir, disk_errors
from pipeline.threads import in_daemon

LOOK_S = 0.5


async def run_in_shards(settings: Settings, shards: int, options: RunOptions) -> RunSummary:
    """Label the input in this many processes, here or where Ray places them. The same call resumes. Raises SetupError.

    Afterward, the run folder has one ledger and one set of files, as after any run.
    """
    if settings.config_path is None:
        raise ConfigError("shards are separate processes, which read the config from a file: name one")
    for number in range(1, shards + 1):
        shard_overrides(settings, number, shards)
    switch = StopSwitch()
    return await under(switch, _run(settings, shards, options, switch))


async def _run(settings: Settings, shards: int, options: RunOptions, switch: StopSwitch) -> RunSummary:
    run = Path(settings.output.dir)
    loop = asyncio.get_running_loop()
    async with in_ray(settings, shards) if settings.scale.engine == "ray" else _on_this_machine() as (host, start):
        plan = await plan_shards(settings, shards, options)
        began = loop.time()
        with RunDir(run / FOLDER).open_for_writing():
            group = await _at_work(settings, plan, options, switch, host, start)
            group.parts = await _parts_in(RunDir(run).shards())
    if broken := [shard for shard in group.shards if shard.code == 2]:
        raise SetupError(f"shard {broken[0].number} of {shards} cannot start:\n{broken[0].output_tail()}")
    figures, why = group.session_figures(loop.time() - began), group.end_reason
    await asyncio.to_thread(join, run, plan)
    summary = await arun(group.orders.settings, replace(options, stop_first=why, quiet=True))
    summary = replace(summary, **figures)
    RunDir(run).write_summary(summary.as_dict())
    return summary


async def _parts_in(shards: Iterable[RunDir]) -> list[Part]:
    parts: list[Part] = []
    for shard in shards:
        async with await Ledger.open(shard.ledger, read_only=True) as ledger:
            parts += await BatchBook(ledger).parts()
    return parts


async def plan_shards(settings: Settings, shards: int, options: RunOptions) -> ShardPlan:
    """Return the plan of the shards, and make it if there is none yet. Raises SetupError if it is another run's.

    `shards` is 0 if their number is not known yet.
    """
    run = Path(settings.output.dir)
    task = task_of(settings)
    sources = await in_daemon(partial(sources_of, settings, None))
    digest = job_digest(settings, task, sources)
    plan = read_plan(run)
    if plan is not None:
        if shards and plan.shards:
            refuse_other_count(run, plan, shards)
        if plan.digest != digest:
            raise SetupError(
                f"{run} was dealt out to shards for another task or input. Put them together first, then go on: "
                f"labelpipe merge {run}"
            )
        return plan if plan.shards else replace(plan, shards=shards)
    if RunDir(run).ledger.exists():
        async with await Ledger.open(RunDir(run).ledger, read_only=True) as ledger:
            await refuse_open_batches(RunDir(run), ledger, "splitting its records into shards")
    # As in any session, compare an earlier run with the settings, and archive it if the user wants that.
    await arun(settings, replace(options, stop_first=MergedError(), quiet=True, after=None))
    # Keep the run's id, because callbacks and its database table identify it by that.
    async with await Ledger.open(RunDir(run).ledger) as ledger:
        run_id = await ledger.run_id()
    made = ShardPlan(shards, run_id, digest, uuid.uuid4().hex, folder_setting(settings.scale.folder))
    make_folder(run, made)
    base = run / FOLDER / BASE
    with disk_errors(base):  # not a link, because SQLite must not know a file that changes by two names
        await asyncio.to_thread(shutil.copyfile, RunDir(run).ledger, base)
    if made.address:
        await in_daemon(partial(save_base, made.address, made.dealing, base))
    write_plan(run, made)
    return made


@dataclass(slots=True)
class _ShardGroup:
    """The running shards, with their state and control. `before` counts the outcomes from before there were shards.

    Mutable state: the reason for an early end, the last status of each shard, and the parts of all shards.
    """

    settings: Settings
    processes: Processes
    service: LeaseService
    reading: ReadProgress
    before: Counter[Status]
    orders: Orders = field(init=False)
    reason: LabelpipeError | None = None
    live: list[dict[str, Any]] = field(default_factory=list)
    parts: Sequence[Part] = ()

    @property
    def shards(self) -> Sequence[Shard]:
        """All shards, running or not."""
        return self.processes.shards

    def poll(self) -> None:
        """Read the status of each shard."""
        self.live = [live for shard in self.shards if (live := read_live(RunDir(shard.folder))) is not None]

    def snapshot(self) -> Snapshot:
        """Return the progress of all shards together."""
        live = self.live

        def added(name: str) -> Any:
            return sum(one.get(name) or 0 for one in live)

        done = self.before.total() + added("done")
        costs = [one.get("cost_usd") for one in live]
        state = self.service.state(asyncio.get_running_loop().time())
        trouble = "PAUSED; labelpipe resume continues" if self.service.is_paused else ""
        trouble = trouble or ("" if self.reason is None else f"stopping: {self.reason}")
        waiting = sum((OpenBatches(**one["batches"]) for one in live if one.get("batches")), OpenBatches())
        trouble = trouble or waiting.text or next((one["trouble"] for one in live if one.get("trouble")), "")
        total = self.reading.exact_total
        return Snapshot(
            done=done,
            total=None if total is None else max(total, done),
            total_known=total is not None,
            rate_per_minute=added("rate_per_minute"),
            limit_per_minute=state["requests"]["per_minute"],
            calls_per_record=max((one.get("calls_per_record") or 1.0 for one in live), default=1.0),
            cost_usd=None if not live or None in costs else sum(cost or 0.0 for cost in costs),
            in_flight=added("in_flight"),
            retries=added("retries"),
            unlabelled=self.before.total() - self.before[Status.LABELLED] + added("unlabelled"),
            trouble=trouble,
            gold=max(live, key=lambda one: one.get("written_at") or 0.0, default={}).get("gold") or "",
            simulated=is_simulated(self.settings) or any(one.get("simulated") for one in live),
        )

    def end(self, reason: LabelpipeError) -> None:
        """Ask all shards to end."""
        self.reason = self.reason or reason
        self.service.set_paused(False)
        self.processes.end()

    @property
    def end_reason(self) -> LabelpipeError:
        """The reason for an early end: from the user or the lease server, or else from a shard."""
        if self.service.stopped is not None:
            return stopped_error(*self.service.stopped)
        if self.service.short:
            return stopped_error(BudgetReachedError.code, self.service.short)
        if self.reason is None and (text := OpenBatches.of([part for part in self.parts if part.is_open]).text):
            took_s = [part.took_s for part in self.parts if part.took_s is not None]
            return BatchesOpenError(f"{text}; {return_hint(took_s)}")
        reasons = [(RunDir(shard.folder).read_summary() or {}).get("reason") for shard in self.shards]
        return self.reason or MergedError(next((str(one) for one in reasons if one), None))

    def session_figures(self, seconds: float) -> dict[str, Any]:
        """Return the figures of the session: sums over the shards, and the latencies of the slowest one."""
        ended = [summary for shard in self.shards if (summary := RunDir(shard.folder).read_summary()) is not None]

        def most(name: str) -> Any:
            return max((one[name] for one in ended if one.get(name) is not None), default=None)

        sums = {name: sum(one.get(name) or 0 for one in ended) for name in ("calls", "refusals", "session_records")}
        return {
            **sums,
            "retries": dict(sum((Counter(one.get("retries") or {}) for one in ended), Counter[str]())),
            "session_s": seconds,
            "latency_p50_s": most("latency_p50_s"),
            "latency_p95_s": most("latency_p95_s"),
            "outages": most("outages") or 0,
            "outage_s": most("outage_s") or 0.0,
        }


async def _at_work(
    settings: Settings, plan: ShardPlan, options: RunOptions, switch: StopSwitch, host: str, start: Start
) -> _ShardGroup:
    """Run the shards from start to end."""
    token = secrets.token_urlsafe(24)
    extra = ["--relabel"] * options.relabel + ["--keep"] * options.keep
    extra += ["--no-wait"] * (options.batches == BatchMode.NO_WAIT)
    async with coordinator(settings, plan, host=host, port=0, token=token) as (url, service):
        processes = Processes(settings, plan.shards, url, token, extra, start)
        reading = ReadProgress()
        run = RunDir(Path(settings.output.dir))
        before = await count_outcomes([run.before_shards])
        done = before.total() + (await count_outcomes(one.ledger for one in run.shards())).total()
        group = _ShardGroup(settings, processes, service, reading, before)
        progress = Progress(group.snapshot, quiet=options.quiet, title=f"{plan.shards} shards")
        group.orders = Orders(settings, service, progress.echo)
        if any(RunDir(shard.folder).is_running() for shard in group.shards):
            progress.echo("labelpipe: the shards of an earlier session first finish their calls in flight")
        if plan.address:
            progress.echo(
                f"labelpipe: the shards are synced to {plan.address} every {settings.scale.sync_s:g} s. If a "
                "machine is lost, at most the answers of this time are asked and paid for again"
            )
        switch.turn(_on_signal(group, progress), processes.end)
        task = task_of(settings)
        sources = await in_daemon(partial(sources_of, settings, None))
        shows = (
            progress.run(),
            print_opening(progress.echo, settings, task, sources, reading, done),
            _watch(group, service),
        )
        try:
            async with background_tasks(*shows):
                await processes.run()
        finally:
            switch.turn(lambda _: None)
            progress.close()
    return group


@asynccontextmanager
async def _on_this_machine() -> AsyncIterator[tuple[str, Start]]:
    yield "127.0.0.1", start_here


def _on_signal(group: _ShardGroup, progress: Progress) -> Callable[[str], None]:
    def soft(name: str) -> None:
        progress.echo(f"labelpipe: {name}: finishing the calls in flight; repeat to cut them off.")
        group.end(interruption(name))

    return soft


async def _watch(group: _ShardGroup, service: LeaseService) -> None:
    """Poll the shards and the orders until canceled."""
    while True:
        group.poll()
        if service.stopped is not None and group.reason is None:
            group.end(stopped_error(*service.stopped))
        group.orders.poll()
        await asyncio.sleep(LOOK_S)


async def serve_leases(
    settings: Settings, shards: int | None, host: str, port: int, token: str, echo: Callable[[str], None]
) -> None:
    """Serve the limits of a run to shards that others start, until a signal. Raises SetupError."""
    switch = StopSwitch()
    await under(switch, _serve(settings, shards or 0, host, port, token, echo))


async def _serve(
    settings: Settings, shards: int, host: str, port: int, token: str, echo: Callable[[str], None]
) -> None:
    run = Path(settings.output.dir)
    plan = await plan_shards(settings, shards, RunOptions())
    with RunDir(run / FOLDER).open_for_writing():
        async with coordinator(settings, plan, host=host, port=port, token=token) as (url, service):
            echo(f"labelpipe: the limits of {run} are served at {url}")
            echo(f"  shards    labelpipe run {settings.config_path} --shard 1/N --leases {url}")
            echo(f"  then      labelpipe merge {run}")
            orders = Orders(settings, service, echo)
            while service.stopped is None or service.at_work:
                orders.poll()
                await asyncio.sleep(LOOK_S)
            echo(f"labelpipe: {service.stopped[1]}")
