"""Labels records and reads the state of runs, from Python."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import facts, labelfields, planner, report, results, runner, show, stats
from pipeline.api.display import Config, Displayable, DisplayableFacts, link, settings_of, sync_form, to_displayable
from pipeline.errors import MissingExtraError, SetupError
from pipeline.facts import Check, Tier
from pipeline.readers import RecordInput
from pipeline.runner import RunOptions, run_sync
from pipeline.settings import Settings
from pipeline.store import read_table
from pipeline.targets import find_run, load_settings
from pipeline.units import dollars, duration

if TYPE_CHECKING:
    import pandas


def _with_report(settings: Settings, options: RunOptions | None) -> RunOptions:
    """Return the options, with the function that writes the report at the end if the settings ask for it."""
    options = options or RunOptions()
    has_report = options.after is None and settings.output.report
    return replace(options, after=report.after_run) if has_report else options


class RunSummary(Displayable, stats.RunSummary):
    """The result of a run."""

    _view = "closing_lines"

    def to_pandas(self) -> pandas.DataFrame:
        """Return the run's rows as a frame, in input order. The index is a record's position in the input, from 0.

        The columns are those of labels.csv, and `problem`: why a record has no label, or None.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingExtraError("to_pandas()", "pandas") from error
        titles, index, rows = run_sync(read_table(self.run_dir))
        return pandas.DataFrame(rows, index=index, columns=titles)

    def _repr_html_(self) -> str:
        """Return a small table, for a notebook."""
        cost = dollars(self.cost_usd)
        page = self.files.get("report")
        facts = [
            ("labelled", f"{self.labelled:,}"),
            ("rejected", f"{self.rejected:,}"),
            ("failed", f"{self.failed:,}"),
            ("pending", "unknown" if self.pending is None else f"{self.pending:,}"),
            ("without label", ", ".join(f"{code} {count:,}" for code, count in self.problems.items())),
            ("time", f"{duration(self.session_s)} for {self.session_records:,} records"),
            ("cost", f"free; the model would cost {cost}" if self.simulated else cost),
            *show.lane_texts(self.lanes).items(),
            *(
                (column, _shares(counts, of))
                for column, counts, of in show.countable_labels(self.labels, self.labelled)
            ),
            *((f"accuracy of {column}", f"{one['accuracy']:.1%}") for column, one in self.measured.items()),
            *((f"{name} file", path) for name, path in self.files.items() if name != "report"),
            ("next", self.next_step),
        ]
        head = f"{self.ended}: {self.reason}" if self.reason else self.ended
        return _table_html(head, facts, simulated=self.simulated, page="" if page is None else link(page))


def _shares(counts: Mapping[str, int], of: int) -> str:
    """Format the most frequent values: `positive 110 (37%), negative 110 (37%)`."""
    frequent = list(counts.items())[: show.CLASSES_SHOWN]
    more = f", and {len(counts) - len(frequent)} more values" if len(counts) > len(frequent) else ""
    return ", ".join(f"{value} {count:,} ({count / of:.0%})" for value, count in frequent) + more


def _table_html(head: str, facts: Sequence[tuple[str, str]], *, simulated: bool, page: str) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in facts if text)
    rows += f"<tr><th>report</th><td>{page}</td></tr>" if page else ""
    foot = f"<tr><td colspan=2><b>{escape(show.SIMULATED)}</b></td></tr>" if simulated else ""
    return f"<table><tr><th colspan=2>{escape(head)}</th></tr>{rows}{foot}</table>"


class Checks(Displayable, tuple[Check, ...]):
    """The results of `check`. `ok` is false if anything has to be fixed before a run."""

    __slots__ = ()

    @property
    def ok(self) -> bool:
        """Whether no check failed. A warning is not a failure."""
        return all(one.ok is not False for one in self)

    @property
    def server(self) -> Mapping[str, Any] | None:
        """What a server that is not OpenAI's does with calls (the server card); None if no server was asked."""
        return next((one.card for one in self if one.card is not None), None)

    _view = "check_lines"


class Preview(Displayable, facts.Preview):
    """The result of a preview."""

    _view = "preview_lines"


class Plan(Displayable, facts.Plan):
    """What the full run takes."""

    _view = "plan_lines"


class Report(Displayable, results.Report):
    """The result of `verify`."""

    def _lines(self) -> Sequence[str]:
        return self.lines()


class RehearsedPlan(Displayable, facts.RehearsedPlan):
    """The result of a rehearsal."""

    _view = "rehearsal_lines"


@dataclass(frozen=True, slots=True, repr=False)
class RunStatus(DisplayableFacts):
    """The state of a run. `facts` holds all that `labelpipe status --json` prints; `status["live"]` is one of them.

    `ended` is how the last session ended, None while one is `running`. `cost_usd` is None if no price is known.
    """

    run_dir: str
    running: bool
    simulated: bool
    labelled: int
    rejected: int
    failed: int
    problems: Mapping[str, int]
    cost_usd: float | None
    ended: str | None
    next_step: str

    _view = "status_lines"


async def arun(config: Config, options: RunOptions | None = None, *, records: RecordInput | None = None) -> RunSummary:
    """Do the same as `run` in a program with its own event loop."""
    settings = settings_of(config)
    options = _with_report(settings, options)
    if settings.scale.shards is not None and records is None:
        return to_displayable(RunSummary, await _in_shards(settings, options))
    return to_displayable(RunSummary, await runner.arun(settings, options, records=records))


async def _in_shards(settings: Settings, options: RunOptions) -> stats.RunSummary:
    from pipeline.shards import run_in_shards  # few runs need its server and client

    return await run_in_shards(settings, settings.scale.shards or 1, options)


async def acheck(config: Config, *, online: bool = True) -> Checks:
    """Find everything that can be wrong before you spend anything. `online=False` asks no server."""
    return Checks(await planner.check(settings_of(config), online=online))


async def apreview(
    config: Config,
    n: int = 5,
    *,
    records: RecordInput | None = None,
    keys: Collection[str] = (),
    sample: int = 0,
    prompt: bool = False,
) -> Preview:
    """Label the first `n` records, those with `keys`, and a `sample` of all. Writes nothing. Raises SetupError.

    With `prompt`, nothing is sent, and `requests` holds the requests instead.
    """
    result = await planner.preview(settings_of(config), n, records=records, keys=keys, sample=sample, prompt=prompt)
    return to_displayable(Preview, result)


async def aplan(config: Config, pilot: int = 20, *, quiet: bool = False) -> Plan:
    """Label a sample of `pilot` records, save them in the run, and estimate the rest. Raises SetupError."""
    return to_displayable(Plan, await planner.plan(settings_of(config), pilot, quiet=quiet))


async def arehearse_plan(
    config: Config, records: int | None = None, tier: Tier | None = None, *, pilot: int = 20, quiet: bool = False
) -> RehearsedPlan:
    """Compare a plan with a run against the built-in endpoint, without a key or cost. Raises SetupError."""
    result = await planner.rehearse_plan(settings_of(config), records, tier or Tier(), pilot=pilot, quiet=quiet)
    return to_displayable(RehearsedPlan, result)


async def areplay(config: Config) -> RunSummary:
    """Read the stored answers again and write the files, without calls. Raises SetupError."""
    settings = settings_of(config)
    return to_displayable(RunSummary, await runner.replay(settings, after=_with_report(settings, None).after))


async def astatus(run: str | Path | None = None) -> RunStatus:
    """Return the state of a run, given its folder or config; by default of the latest run here. Raises SetupError."""
    facts = await runner.status(find_run(run))
    values = {one.name: facts[one.name] for one in fields(RunStatus) if one.name != "facts"}
    return RunStatus(facts, **values)


async def averify(run: str | Path | None = None, *, read_input: bool = True, remote: bool = False) -> Report:
    """Verify a run from its files. With `read_input`, every record of the input is accounted for. Raises SetupError.

    Addresses and databases that the run folder names are read only with `remote`.
    """
    return to_displayable(Report, await runner.verify(find_run(run), read_input=read_input, remote=remote))


def run(config: Config, options: RunOptions | None = None, *, records: RecordInput | None = None) -> RunSummary:
    """Label the input of a config, or `records`, and return a summary. The same call resumes a run.

    `config` is `Settings` or the path of a config. `records` is a pandas or polars frame, or an iterable or
    asynchronous iterable of mappings. This also works in a notebook. In a program with its own event loop, use
    `await arun(config)`. Raises SetupError.
    """
    settings = settings_of(config)
    options = _with_report(settings, options)
    if settings.scale.shards is not None and records is None:
        return to_displayable(RunSummary, run_sync(_in_shards(settings, options)))
    return to_displayable(RunSummary, runner.run(settings, options, records=records))


async def amerge(run: str | Path | None = None) -> Merged:
    """Merge the shards of a run, given its folder or config. Raises SetupError if there is no run."""
    from pipeline.shards import merge as join

    return to_displayable(Merged, await join(load_settings(find_run(run))))


class Merged(Displayable, stats.Merged):
    """The merged shards of a run."""

    _view = "merged_lines"


class ReportFile(Displayable, facts.ReportFile):
    """The report page that was written."""

    _view = "report_lines"

    def _repr_html_(self) -> str:
        """Return a link, for a notebook."""
        return link(self.path)


async def awrite_report(run: str | Path | None = None, to: str | Path | None = None) -> ReportFile:
    """Write the report page of a run, given its folder or config: to `to`, or to `report.html` in its folder.

    The run may still be active. Raises SetupError if there is no run or the file cannot be written.
    """
    written = await report.write_report(find_run(run), None if to is None else Path(to))
    return ReportFile(**written.as_dict())


async def awatch(run: str | Path | None = None, *, port: int = 0, ready: Callable[[str], None] = print) -> None:
    """Serve the report page of a run on this machine until interrupted. `ready` receives the address to open.

    Port 0 picks a free port. Raises SetupError if there is no run or the port is taken.
    """
    await report.watch(find_run(run, at_work=True), port=port, ready=ready)


class Renamed(Displayable, labelfields.Renamed):
    """The result of renaming labels."""

    _view = "renamed_lines"


async def arename(
    run: Settings | str | Path, column: str, pairs: Mapping[Any, Any], *, dry_run: bool = False
) -> Renamed:
    """Rename labels of `column` in the run and in its config: `{"account": "login"}`. Makes no call.

    `run` is a run folder, its config, or its settings. Two labels with the same new name are merged. With `dry_run`,
    nothing changes, and the affected records are counted. An existing report is written again. Raises SetupError, also
    while the run is active.
    """
    settings = run if isinstance(run, Settings) else load_settings(run)
    result = await runner.rename(settings, column, pairs, dry_run=dry_run)
    if not dry_run and (page := Path(result.run_dir) / "report.html").is_file():
        try:
            await report.write_report(page.parent)
        except SetupError as error:
            result = replace(result, notes=(*result.notes, str(error)))
    return to_displayable(Renamed, result)


check = sync_form(acheck)
preview = sync_form(apreview)
merge = sync_form(amerge)
plan = sync_form(aplan)
rehearse_plan = sync_form(arehearse_plan)
replay = sync_form(areplay)
status = sync_form(astatus)
verify = sync_form(averify)
write_report = sync_form(awrite_report)
watch = sync_form(awatch)
rename = sync_form(arename)
