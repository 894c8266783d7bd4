"""Writes a run's labels to a table in a database."""

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
from pipeline.targets import merged_run_and_manifest, run_origin_of

#: The waits before a session tries again to write the table. A database that restarts is back by then.
WAITS_S = (1.0, 5.0, 25.0)
#: A SQLite URL whose path is relative.
_RELATIVE = re.compile(r"(sqlite(?:\+\w+)?:///)(?!/|\w:|file:)(.+)")


async def export(run: str | Path | None = None, to: str | None = None, *, table: str | None = None) -> Export:
    """Write the labels of a run into a table, by the records' keys. May be repeated, even during the run.

    `to` is an SQLAlchemy URL; without it, the database and the table are those of the run's [output.sql]. Raises
    SetupError, StoreError.
    """
    run_dir, manifest = await merged_run_and_manifest(run)
    target = await _target(run_dir, run_dir.path / manifest["reading"]["base"], to, table)
    whole = not run_dir.is_running()
    done = await asyncio.to_thread(export_table, target, run_dir.ledger, whole=whole)
    return Export(run_dir=str(run_dir.path), simulated=bool(manifest.get("simulated")), **asdict(done))


async def _target(run_dir: RunDir, here: Path, to: str | None, table: str | None) -> SqlTarget:
    if table is not None and not is_table_name(table):
        raise SetupError(f"--table: got {table!r}; {TABLE_WANTED}")
    if to is not None:
        if "://" not in to:
            # The value is not repeated: it may contain a password.
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
    """Return the URL of the run's database. An SQLite path is relative to where the run was started."""
    url, setting = place.url, variable(place.url_env, config) if place.url_env else None
    if url is None and setting is not None:
        url = setting[0].get_secret_value()
    relative = _RELATIVE.fullmatch(url or "")
    return f"{relative[1]}{(here / relative[2]).resolve()}" if relative else url


def _config_of(folder: Path) -> Path | None:
    """Return the config of the run, which may have a .env next to it."""
    with suppress(SetupError):
        return run_origin_of(folder).config
    return None


# -- the table of a session ------------------------------------------------------------------------------------------


async def export_at_end(summary: RunSummary, settings: Settings, run_dir: RunDir) -> RunSummary:
    """Write the table of a session that has ended. Return the summary, which also reports an error."""
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
