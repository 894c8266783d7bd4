"""Labeling and looking at runs, from Python."""

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
    """The options with what writes the report at the end, where it is wanted."""
    options = options or RunOptions()
    has_report = options.after is None and settings.output.report
    return replace(options, after=report.after_run) if has_report else options


class RunSummary(Displayable, stats.RunSummary):
    """What a run came to."""

    _view = "closing_lines"

    def to_pandas(self) -> pandas.DataFrame:
        """The run's rows as a frame, in the input's order. The index is the record's place in the input, from 0.

        Its columns are those of labels.csv, and `problem`: why a record has no label, else None.
        """
        try:
            import pandas
        except ImportError as error:
            raise MissingExtraError("to_pandas()", "pandas") from error
        titles, index, rows = run_sync(read_table(self.run_dir))
        return pandas.DataFrame(rows, index=index, columns=titles)

    def _repr_html_(self) -> str:
        """A small table, for a notebook."""
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
    """`positive 110 (37%), negative 110 (37%)`: the most frequent ones."""
    frequent = list(counts.items())[: show.CLASSES_SHOWN]
    more = f", and {len(counts) - len(frequent)} more values" if len(counts) > len(frequent) else ""
    return ", ".join(f"{value} {count:,} ({count / of:.0%})" for value, count in frequent) + more


def _table_html(head: str, facts: Sequence[tuple[str, str]], *, simulated: bool, page: str) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in facts if text)
    rows += f"<tr><th>report</th><td>{page}</td></tr>" if page else ""
    foot = f"<tr><td colspan=2><b>{escape(show.SIMULATED)}</b></td></tr>" if simulated else ""
    return f"<table><tr><th colspan=2>{escape(head)}</th></tr>{rows}{foot}</table>"


class Checks(Displayable, tuple[Check, ...]):
    """What `check` looked at. `ok` is false where anything has to be fixed before a run."""

    __slots__ = ()

    @property
    def ok(self) -> bool:
        """Whether no check failed; a warning is no failure."""
        return all(one.ok is not False for one in self)

    @property
    def server(self) -> Mapping[str, Any] | None:
        """The server card: what a server that is not OpenAI's does with calls; None where none was asked."""
        return next((one.card for one in self if one.card is not None), None)

    _view = "check_lines"


class Preview(Displayable, facts.Preview):
    """What a preview came to."""

    _view = "preview_lines"


class Plan(Displayable, facts.Plan):
    """What the full run takes."""

    _view = "plan_lines"


class Report(Displayable, results.Report):
    """What `verify` found."""

    def _lines(self) -> Sequence[str]:
        return self.lines()


class RehearsedPlan(Displayable, facts.RehearsedPlan):
    """What came of a rehearsal."""

    _view = "rehearsal_lines"


@dataclass(frozen=True, slots=True, repr=False)
class RunStatus(DisplayableFacts):
    """A run as it stands. `facts` is all of it, as `labelpipe status --json` prints it; `status["live"]` is one fact.

    `ended` says how the last session ended, None while one is `running`. `cost_usd` is None where no price is known.
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
    """`run`, for a program that has an event loop."""
    settings = settings_of(config)
    options = _with_report(settings, options)
    if settings.scale.shards is not None and records is None:
        return to_displayable(RunSummary, await _in_shards(settings, options))
    return to_displayable(RunSummary, await runner.arun(settings, options, records=records))


async def _in_shards(settings: Settings, options: RunOptions) -> stats.RunSummary:
    from pipeline.shards import run_in_shards  # its server and its client are for those who use them

    return await run_in_shards(settings, settings.scale.shards or 1, options)


async def acheck(config: Config, *, online: bool = True) -> Checks:
    """Everything that can be wrong, found before a cent is spent; `online=False` asks no server."""
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
    """Label the first `n` records, those of `keys` and a `sample` of all, and write nothing. Raises SetupError.

    With `prompt` nothing is sent: `requests` are what would be.
    """
    result = await planner.preview(settings_of(config), n, records=records, keys=keys, sample=sample, prompt=prompt)
    return to_displayable(Preview, result)


async def aplan(config: Config, pilot: int = 20, *, quiet: bool = False) -> Plan:
    """Label a sample of `pilot` records, which are kept in the run, and say what the rest takes. Raises SetupError."""
    return to_displayable(Plan, await planner.plan(settings_of(config), pilot, quiet=quiet))


async def arehearse_plan(
    config: Config, records: int | None = None, tier: Tier | None = None, *, pilot: int = 20, quiet: bool = False
) -> RehearsedPlan:
    """A plan against the built-in endpoint: planned beside happened, without key or cost. Raises SetupError."""
    result = await planner.rehearse_plan(settings_of(config), records, tier or Tier(), pilot=pilot, quiet=quiet)
    return to_displayable(RehearsedPlan, result)


async def areplay(config: Config) -> RunSummary:
    """Read the stored answers again and write the files again; no call is made. Raises SetupError."""
    settings = settings_of(config)
    return to_displayable(RunSummary, await runner.replay(settings, after=_with_report(settings, None).after))


async def astatus(run: str | Path | None = None) -> RunStatus:
    """A run as it stands, by its folder or its config; the latest one here without either. Raises SetupError."""
    facts = await runner.status(find_run(run))
    values = {one.name: facts[one.name] for one in fields(RunStatus) if one.name != "facts"}
    return RunStatus(facts, **values)


async def averify(run: str | Path | None = None, *, read_input: bool = True, remote: bool = False) -> Report:
    """Prove a run from its files; with `read_input` every record of the input is accounted for. Raises SetupError.

    Addresses and databases that the run folder names are read with `remote` only.
    """
    return to_displayable(Report, await runner.verify(find_run(run), read_input=read_input, remote=remote))


def run(config: Config, options: RunOptions | None = None, *, records: RecordInput | None = None) -> RunSummary:
    """Label the input of a config, or `records`; the same call resumes. Works in a notebook too. Raises SetupError.

    `config` is `Settings` or the path of a config. `records` are mappings in any iterable or asynchronous one, or a
    frame of pandas or polars. In a program that has an event loop of its own: `await arun(config)`.
    """
    settings = settings_of(config)
    options = _with_report(settings, options)
    if settings.scale.shards is not None and records is None:
        return to_displayable(RunSummary, run_sync(_in_shards(settings, options)))
    return to_displayable(RunSummary, runner.run(settings, options, records=records))


async def amerge(run: str | Path | None = None) -> Merged:
    """Put the shards of a run together, by its folder or its config. Raises SetupError where there is no run."""
    from pipeline.shards import merge as join

    return to_displayable(Merged, await join(load_settings(find_run(run))))


class Merged(Displayable, stats.Merged):
    """The shards of a run that were put together."""

    _view = "merged_lines"


class ReportFile(Displayable, facts.ReportFile):
    """The page about a run that was written."""

    _view = "report_lines"

    def _repr_html_(self) -> str:
        """A link, for a notebook."""
        return link(self.path)


async def awrite_report(run: str | Path | None = None, to: str | Path | None = None) -> ReportFile:
    """Write a page about a run, by its folder or its config: to `report.html` in its folder, or `to` another file.

    The run may be at work. Raises SetupError where there is no run, or where the file cannot be written.
    """
    written = await report.write_report(find_run(run), None if to is None else Path(to))
    return ReportFile(**written.as_dict())


async def awatch(run: str | Path | None = None, *, port: int = 0, ready: Callable[[str], None] = print) -> None:
    """Serve the page about a run on this machine until it is interrupted; `ready` gets the address to open.

    Port 0 takes a free one. Raises SetupError where there is no run, or the port is taken.
    """
    await report.watch(find_run(run, at_work=True), port=port, ready=ready)


class Renamed(Displayable, labelfields.Renamed):
    """What renaming labels came to."""

    _view = "renamed_lines"


async def arename(
    run: Settings | str | Path, column: str, pairs: Mapping[Any, Any], *, dry_run: bool = False
) -> Renamed:
    """Give labels of `column` other names in the run and in its config: `{"account": "login"}`. Makes no call.

    `run` is a run folder, its config, or its settings. Two labels with one new name are merged. With `dry_run` nothing
    is changed, and the records that would be are counted. The report, if there is one, is written again. Raises
    SetupError, also while the run is at work.
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
