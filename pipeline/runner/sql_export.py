"""A run's labels written to where others use them: a table in a database."""

import asyncio
import logging
import re
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from pipeline.errors import SetupError, StoreError
from pipeline.facts import Export
from pipeline.parts import sql_of
from pipeline.runlog import log_event
from pipeline.settings import TABLE_WANTED, Settings, is_table_name, variable
from pipeline.stats import RunSummary
from pipeline.store import Ledger, RunDir, SqlPlace, SqlTarget, TableExport, export_table
from pipeline.targets import run_and_manifest, run_origin_of

#: The waits before a session tries again to write the table: a database that restarts is back by then.
WAITS_S = (1.0, 5.0, 25.0)
#: A SQLite URL whose path is relative.
_RELATIVE = re.compile(r"(sqlite(?:\+\w+)?:///)(?!/|\w:|file:)(.+)")


async def export(run: str | Path | None = None, to: str | None = None, *, table: str | None = None) -> Export:
    """Make a table hold the labels of a run, by the records' keys. Can be given again, also while the run is at work.

    `to` is an SQLAlchemy URL; without it, the database and the table of the run's [output.sql] are meant. Raises
    SetupError, StoreError.
    """
    run_dir, manifest = run_and_manifest(run)
    target = await _target(run_dir, run_dir.path / manifest["reading"]["base"], to, table)
    whole = not run_dir.is_running()
    done = await asyncio.to_thread(export_table, target, run_dir.ledger, whole=whole)
    return Export(run_dir=str(run_dir.path), simulated=bool(manifest.get("simulated")), **asdict(done))


async def _target(run_dir: RunDir, here: Path, to: str | None, table: str | None) -> SqlTarget:
    if table is not None and not is_table_name(table):
        raise SetupError(f"--table: got {table!r}; {TABLE_WANTED}")
    if to is not None:
        if "://" not in to:
            # Not repeated: it may hold a password.
            raise SetupError(
                "--to: expected a database URL, like sqlite:///labels.db or postgresql+psycopg://user@host/name"
            )
        return SqlTarget(to, table or "labels")
    async with await Ledger.open(run_dir.ledger, read_only=True) as ledger:
        text = await ledger.meta_get("sql")
    if text is None:
        raise SetupError(
            f"{run_dir.path}: name a destination: --to data/ for training data, or --to sqlite:///labels.db; "
            "the run has no [output.sql]"
        )
    place = SqlPlace.from_text(text)
    if (url := url_of(place, here, _config_of(run_dir.path))) is None:
        raise SetupError(f"output.sql: {place.url_env} is not set. Put it into the environment or .env, or give --to")
    return SqlTarget(url, table or place.table)


def url_of(place: SqlPlace, here: Path, config: Path | None = None) -> str | None:
    """The URL of the run's database; an SQLite file is looked for from where the run was started."""
    url, setting = place.url, variable(place.url_env, config) if place.url_env else None
    if url is None and setting is not None:
        url = setting[0].get_secret_value()
    relative = _RELATIVE.fullmatch(url or "")
    return f"{relative[1]}{(here / relative[2]).resolve()}" if relative else url


def _config_of(folder: Path) -> Path | None:
    """The config that the run was started with: a .env may be beside it."""
    with suppress(SetupError):
        return run_origin_of(folder).config
    return None


# -- a session's own table -------------------------------------------------------------------------------------------


async def export_at_end(summary: RunSummary, settings: Settings, run_dir: RunDir) -> RunSummary:
    """The summary of a session that is over, after its table was written; where that failed, it says so."""
    target = sql_of(settings)
    if target is None:
        return summary
    try:
        done = await _export_patiently(target, run_dir)
    except (SetupError, StoreError) as error:
        log_event("the table is not written", level=logging.ERROR, reason=str(error))
        reason = f"{summary.reason}; {error}" if summary.reason else str(error)
        return replace(
            summary, ended="stopped", exit_code=3, reason=reason, next_step=f"labelpipe export {run_dir.path}"
        )
    text = f"{done.table}, {done.rows:,} rows"
    files = {"table": text} if "labels" in summary.files else {"labels": f"table {text}"}
    return replace(summary, files={**files, **summary.files})


async def _export_patiently(target: SqlTarget, run_dir: RunDir) -> TableExport:
    for wait_s in WAITS_S:
        try:
            return await asyncio.to_thread(export_table, target, run_dir.ledger, whole=True)
        except StoreError as error:
            log_event("the table waits", level=logging.WARNING, reason=str(error))
        await asyncio.sleep(wait_s)
    return await asyncio.to_thread(export_table, target, run_dir.ledger, whole=True)
