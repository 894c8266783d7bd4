"""Real processes that export into a table, really killed at random moments."""

from __future__ import annotations

import random
import signal
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from test_kill import child
from test_sql import export, proof

WRITER = """
    import asyncio
    import sqlite3
    from contextlib import closing
    from pathlib import Path
    from store_samples import labelled
    from test_sql import SQL, export, session

    path = Path(sys.argv[1])
    number = 0
    if (path / "ledger.db").exists():
        with closing(sqlite3.connect(path / "ledger.db")) as ledger:
            ((number,),) = ledger.execute("SELECT count(*) FROM outcomes")
    while True:
        late = {f"late{number // 50}": number}  # columns come and types change: tables are made anew
        mixed = {"score": number if number % 3 else 0.5}
        batch = [labelled(number + at, {"label": "a", **mixed, **late}) for at in range(7)]
        asyncio.run(session(path, batch, finish=False))
        number += 7
        export(path, whole=False)
        print(number, flush=True)
"""


def keys(path: Path) -> set[str]:
    """What a reader of the table sees."""
    with closing(sqlite3.connect(path / "labels.db")) as connection:
        found = [key for (key,) in connection.execute("SELECT labelpipe_key FROM labels")]
    assert len(found) == len(set(found))
    return set(found)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_kill_leaves_the_rows_of_the_last_export_or_of_this_one(tmp_path: Path) -> None:
    dice = random.Random(11)
    for lines in (1, 2, 4, 7):
        process = child(WRITER, tmp_path)
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in range(lines):
            if not (line := process.stdout.readline()):
                pytest.fail(process.stderr.read())
        time.sleep(dice.random() * 0.1)  # the moment is the point here, so it is not the test's clock
        process.send_signal(signal.SIGKILL)
        process.communicate()
        there = keys(tmp_path)
        assert len(there) % 7 == 0
        assert len(there) >= int(line)
        assert there == {f"r{number}" for number in range(len(there))}
        assert proof(tmp_path)[0], proof(tmp_path)
    done = export(tmp_path)
    assert keys(tmp_path) == {f"r{number}" for number in range(done.rows)}
    assert proof(tmp_path) == (True, f"{done.rows:,} rows, value for value those of the ledger.")
