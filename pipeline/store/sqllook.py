"""How far the table in a database has come: a short look, which a database that is down does not hold up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import LabelpipeError, StoreError
from pipeline.store import queries
from pipeline.store.changes import GENERATION
from pipeline.store.layout import Layout
from pipeline.store.ledger import Ledger
from pipeline.store.schema import connect_reader
from pipeline.store.sqldatabase import connect, require
from pipeline.store.sqlproof import SqlPlace

#: The database has so long to answer.
PATIENCE_S = 2.0


@dataclass(frozen=True, slots=True)
class TableLook:
    """A run's table as it stands. `behind` are labelled records that are not in it yet.

    `rows` and `behind` are None where they cannot be known; `trouble` says why then.
    """

    name: str
    rows: int | None = None
    behind: int | None = None
    trouble: str = ""


async def look_at_table(
    ledger: Ledger, find_url: Callable[[SqlPlace], str | None], *, patience_s: float = PATIENCE_S
) -> TableLook | None:
    """The run's table, or None where it has none. What is wrong with the database is in the answer."""
    layout, text = await ledger.meta_get("layout"), await ledger.meta_get("sql")
    if layout is None or text is None or "sql" not in Layout.from_text(layout).formats:
        return None
    place = SqlPlace.from_text(text)
    if (url := find_url(place)) is None:
        far = "is in a database that the run folder names, and was not looked at; --remote looks there"
        return TableLook(place.table, trouble=far if place.url is not None else f"{place.url_env} is not set")
    try:
        require()  # the import's time is not the database's
        async with asyncio.timeout(patience_s):
            return await asyncio.wrap_future(_aside(lambda: _look(url, place, ledger.path, patience_s)))
    except TimeoutError:
        return TableLook(place.table, trouble=f"not reachable: no answer within {patience_s:g} s")
    except StoreError as error:
        return TableLook(place.table, trouble=f"not reachable: {error}")
    except LabelpipeError as error:
        return TableLook(place.table, trouble=str(error))
    except Exception as error:  # whatever a driver comes up with: who looks at a run is not kept from it
        return TableLook(place.table, trouble=f"not reachable: {type(error).__name__}")


def _look(url: str, place: SqlPlace, ledger: Path, patience_s: float) -> TableLook:
    database = connect(url, place.table, read_only=True, patience_s=patience_s)
    try:
        if database.is_missing_file():
            return TableLook(place.table, trouble="its database is not there")
        with database.transaction() as connection:
            is_there = database.has_table(connection) and database.has_progress(connection)
            row = database.read_progress(connection) if is_there else None
    finally:
        database.close()
    if row is None:
        return TableLook(place.table, trouble="it is not there; the run's next session makes it anew")
    # After the table: what comes in between is behind, never ahead.
    with closing(connect_reader(ledger)) as reader:
        if row.run_id != queries.meta_get(reader, "run_id"):
            return TableLook(place.table, trouble="it is not this run's any more")
        is_old = str(row.generation) != (queries.meta_get(reader, GENERATION) or "0")
        return TableLook(place.table, row.rows_written, queries.labelled_after(reader, 0 if is_old else row.seq))


def _aside(look: Callable[[], TableLook]) -> Future[TableLook]:
    """Done in a thread that nobody waits for: the loop's would be joined at the end, however long a database hangs."""
    done: Future[TableLook] = Future()

    def target() -> None:
        if not done.set_running_or_notify_cancel():
            return
        try:
            done.set_result(look())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=target, name="labelpipe-table", daemon=True).start()
    return done
