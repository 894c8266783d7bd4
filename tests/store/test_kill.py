"""Real processes, really killed, and a disk that is really full."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from store_samples import read_csv

from pipeline.records import Status
from pipeline.store import Layout, Ledger, RunDir, Sinks, prove_files

HERE = Path(__file__).parent


def child(code: str, *args: object) -> subprocess.Popen[str]:
    """A Python process that knows these tests' samples and the package."""
    head = f"import sys; sys.path[:0] = [{str(HERE)!r}, {str(HERE.parents[1])!r}]\n"
    return subprocess.Popen(
        [sys.executable, "-c", head + textwrap.dedent(code), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


WRITER = """
    import asyncio
    from pathlib import Path
    from store_samples import labelled
    from pipeline.store import Layout, Ledger, RunDir, Sinks, sinks

    sinks.SYNC_BYTES = 2000

    async def main():
        path = Path(sys.argv[1])
        with RunDir(path).open_for_writing():
            ledger = await Ledger.open(path / "ledger.db")
            files = await Sinks.start(RunDir(path), ledger, Layout(labels=("label",)))
            number = await ledger.last_seq()
            while True:
                batch = [labelled(number + at, "a,\\n" * (at % 5)) for at in range(7)]
                number += 7
                await files.write(batch, await ledger.commit(batch, files.checkpoints()))
                print(number, flush=True)

    asyncio.run(main())
"""


def killed_after(path: Path, lines: int, dice: random.Random) -> int:
    """Let a writer commit a few batches, kill it in the middle of its work; gives what it last said was safe."""
    process = child(WRITER, path)
    assert process.stdout is not None
    assert process.stderr is not None
    said: list[str] = []
    for _ in range(lines):
        said.append(process.stdout.readline())
        if not said[-1]:
            pytest.fail(process.stderr.read())
    time.sleep(dice.random() * 0.01)  # the moment is the point here, so it is not the test's clock
    process.send_signal(signal.SIGKILL)
    said += process.communicate()[0].split()
    return int(said[-1])


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_no_row_is_lost_or_doubled_by_kills(tmp_path: Path) -> None:
    dice = random.Random(7)
    safe = 0
    for lines in (1, 3, 8, 20):
        safe = max(safe, killed_after(tmp_path, lines, dice))

    async def main() -> list[str]:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            assert [proof for proof in await prove_files(RunDir(tmp_path), ledger) if not proof.ok] == []
            files = await Sinks.start(RunDir(tmp_path), ledger, Layout(labels=("label",)))
            await files.finish()
            assert [proof for proof in await prove_files(RunDir(tmp_path), ledger) if not proof.ok] == []
            return [f"r{number}" for number in range((await ledger.count_by_status())[Status.LABELLED])]

    keys = asyncio.run(main())
    assert len(keys) >= safe >= 7 * 32
    assert [row["id"] for row in read_csv(tmp_path / "labels.csv")] == keys


FULL = """
    import asyncio, resource
    from pathlib import Path
    from store_samples import labelled
    from pipeline.errors import StoreError
    from pipeline.store import Ledger

    async def main():
        ledger = await Ledger.open(Path(sys.argv[1]) / "ledger.db")
        await ledger.commit([labelled(0)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        batch = [labelled(number, fields={"text": "x" * 2000}) for number in range(1, 101)]
        try:
            await ledger.commit(batch)
        except StoreError as error:
            print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(await ledger.commit(batch) == list(range(2, 102)))
        await ledger.close()

    asyncio.run(main())
"""


def test_a_full_disk_is_told_and_the_same_commit_works_when_there_is_room(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    out, err = child(FULL, tmp_path).communicate()
    assert err == ""
    message, again = out.splitlines()
    assert "ledger.db: the ledger cannot be used" in message
    assert "is the disk full?" in message
    assert again == "True"


def test_status_reads_while_another_process_writes(tmp_path: Path) -> None:
    process = child(WRITER, tmp_path)
    assert process.stdout is not None

    async def main() -> None:
        assert process.stdout is not None
        for _ in range(5):
            said = int(process.stdout.readline())
            async with await Ledger.open(tmp_path / "ledger.db", read_only=True) as ledger:
                assert (await ledger.count_by_status())[Status.LABELLED] >= said
                assert [proof for proof in await prove_files(RunDir(tmp_path), ledger) if not proof.ok] == []

    try:
        asyncio.run(main())
    finally:
        process.kill()
        process.communicate()
