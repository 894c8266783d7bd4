"""Real processes that write a table, really killed at random moments."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path

import pytest
from test_kill import child
from test_sql import SQL, place, proof

from pipeline.records import Status
from pipeline.store import Ledger, RunDir, Sinks

WRITER = """
    import asyncio
    from pathlib import Path
    from store_samples import labelled
    from pipeline.store import Layout, Ledger, RunDir, Sinks, SqlOptions, sql, sqltable

    sql.GATHER_S = 0.001
    sqltable.BLOCK = 10

    async def main():
        path = Path(sys.argv[1])
        options = SqlOptions(f"sqlite:///{path / 'labels.db'}", "labels", told_url=f"sqlite:///{path / 'labels.db'}")
        with RunDir(path).open_for_writing():
            ledger = await Ledger.open(path / "ledger.db")
            layout = Layout(labels=("label",), formats=("csv", "sql"))
            files = await Sinks.start(RunDir(path), ledger, layout, sql=options)
            number = await ledger.last_seq()
            while True:
                late = {f"late{number // 50}": number}  # columns come and types change: tables are made anew
                mixed = {"score": number if number % 3 else 0.5}
                batch = [labelled(number + at, {"label": "a", **mixed, **late}) for at in range(7)]
                number += 7
                await files.write(batch, await ledger.commit(batch, files.marks()))
                print(number, flush=True)

    asyncio.run(main())
"""


def numbers(path: Path) -> list[tuple[int, str]]:
    """What a reader of the table sees: number and key of each row."""
    connection = sqlite3.connect(path / "labels.db")
    try:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(labels)")]
        found = connection.execute("SELECT labelpipe_row, id FROM labels ORDER BY 1") if "id" in columns else []
        return [tuple(row) for row in found]
    finally:
        connection.close()


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_no_row_of_the_table_is_lost_or_doubled_by_kills(tmp_path: Path) -> None:
    dice = random.Random(11)
    seen = 0
    for lines in (1, 2, 3, 5, 8, 13, 21, 34):
        process = child(WRITER, tmp_path)
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(lines):
            if not process.stdout.readline():
                pytest.fail(process.stderr.read())
        time.sleep(dice.random() * 0.1)  # the moment is the point here, so it is not the test's clock
        process.send_signal(signal.SIGKILL)
        process.communicate()
        there = numbers(tmp_path)
        assert there == [(at + 1, f"r{at}") for at in range(len(there))], "a row is missing, torn or there twice"
        assert len(there) >= seen
        seen = len(there)
        assert proof(tmp_path)[0], proof(tmp_path)

    async def main() -> int:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            files = await Sinks.start(RunDir(tmp_path), ledger, SQL, sql=place(tmp_path))
            await files.finish(all_done=True)
            return (await ledger.count_by_status())[Status.LABELLED]

    count = asyncio.run(main())
    assert 0 < seen <= count
    assert numbers(tmp_path) == [(at + 1, f"r{at}") for at in range(count)]
    assert proof(tmp_path) == (True, f"{count:,} rows, value for value those of the ledger.")
