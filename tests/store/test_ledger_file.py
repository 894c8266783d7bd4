"""The ledger's file: how it is opened, shared, closed, and what is refused."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from store_samples import labelled

from pipeline.errors import SetupError, StoreError
from pipeline.records import Status
from pipeline.store import Ledger
from pipeline.store.schema import connect_writer
from pipeline.store.sqlitefile import choose_journal


def with_ledger(path: Path, work: Callable[[Ledger], Awaitable[None]]) -> None:
    async def main() -> None:
        async with await Ledger.open(path / "ledger.db") as ledger:
            await work(ledger)

    asyncio.run(main())


def test_a_reader_sees_what_a_writer_has_committed_and_cannot_write(tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.commit([labelled(0)])
        async with await Ledger.open(ledger.path, read_only=True) as reader:
            await ledger.commit([labelled(1)])
            assert (await reader.count_by_status())[Status.LABELLED] == 2
            assert await reader.find_duplicates([("a", ""), ("a", "")]) == {1: ""}
            with pytest.raises(StoreError, match="reading only"):
                await reader.commit([labelled(2)])

    with_ledger(tmp_path, work)


def test_a_folder_that_may_not_be_written_can_be_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            await ledger.commit([labelled(0)])
        tmp_path.chmod(0o500)
        try:
            async with await Ledger.open(tmp_path / "ledger.db", read_only=True) as reader:
                assert (await reader.count_by_status())[Status.LABELLED] == 1
        finally:
            tmp_path.chmod(0o700)

    asyncio.run(main())


def test_a_closed_ledger_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        ledger = await Ledger.open(tmp_path / "ledger.db")
        await ledger.close()
        await ledger.close()
        with pytest.raises(StoreError, match="closed"):
            await ledger.count_by_status()

    asyncio.run(main())


def test_a_commit_that_was_begun_is_finished_though_its_caller_is_cancelled(tmp_path: Path) -> None:
    """The answers in it are paid for. The caller stands behind a slow read of the same thread when it is cancelled."""

    async def work(ledger: Ledger) -> None:
        commits = [asyncio.create_task(ledger.commit([labelled(number)])) for number in range(20)]
        await asyncio.sleep(0)
        for commit in commits:
            commit.cancel()
        gathered = await asyncio.gather(*commits, return_exceptions=True)
        assert any(isinstance(error, asyncio.CancelledError) for error in gathered)
        await ledger.meta_set("after", "all")
        assert (await ledger.count_by_status())[Status.LABELLED] == 20

    with_ledger(tmp_path, work)


def written(path: Path, *statements: str) -> Path:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    return path


async def fails_to_open(path: Path, *, read_only: bool = False) -> str:
    with pytest.raises(SetupError) as caught:
        await Ledger.open(path, read_only=read_only)
    return str(caught.value)


@pytest.mark.parametrize("read_only", [False, True])
def test_what_is_no_ledger_is_refused_with_a_way_out(tmp_path: Path, read_only: bool) -> None:
    text = tmp_path / "text.db"
    text.write_bytes(b"id,text\n" * 1000)
    other = written(tmp_path / "other.db", "CREATE TABLE t (x)")
    newer = tmp_path / "newer.db"
    connect_writer(newer).close()
    written(newer, "PRAGMA user_version = 99")
    folder = tmp_path / "folder.db"
    folder.mkdir()

    async def main() -> None:
        for path, words in (
            (text, "not a ledger"),
            (other, "not a labelpipe ledger"),
            (newer, "made by a newer labelpipe"),
            (folder, "cannot be opened"),
        ):
            message = await fails_to_open(path, read_only=read_only)
            assert words in message
            assert str(path) in message

    asyncio.run(main())


def test_a_reader_needs_a_ledger_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()

    async def main() -> None:
        assert "no ledger here" in await fails_to_open(tmp_path / "none.db", read_only=True)
        assert "If a run was here, restore a copy" in await fails_to_open(tmp_path / "empty.db", read_only=True)

    asyncio.run(main())
    assert not (tmp_path / "none.db").exists()


def test_a_file_that_was_cut_at_its_making_is_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").touch()

    async def work(ledger: Ledger) -> None:
        assert await ledger.commit([labelled(0)]) == [1]

    with_ledger(tmp_path, work)


def test_damage_is_found(tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "ledger.db"
        async with await Ledger.open(path) as ledger:
            await ledger.commit([labelled(number) for number in range(500)])
            assert await ledger.faults() == []
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 4096] = b"\xff" * 4096
        path.write_bytes(data)
        async with await Ledger.open(path, read_only=True) as ledger:
            assert await ledger.faults()

    asyncio.run(main())


def test_where_there_is_no_shared_memory_the_journal_is_another(tmp_path: Path) -> None:
    """Network file systems: SQLite's dot-file locking is as poor as they are."""
    uri = f"file:{tmp_path / 'ledger.db'}?vfs=unix-dotfile"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    assert choose_journal(connection) == "delete"
    connection.close()
    connection = sqlite3.connect(tmp_path / "other.db", isolation_level=None)
    assert choose_journal(connection) == "wal"
    connection.close()


@pytest.fixture
def without_mmap(tmp_path: Path) -> Iterator[Path]:
    """A folder on a real file system that has no shared memory and does not say so."""
    back, here = tmp_path / "back", tmp_path / "mounted"
    back.mkdir()
    here.mkdir()
    try:
        mounted = subprocess.run(["bindfs", "-o", "direct_io", back, here], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("bindfs is not installed: apt-get install bindfs")
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    yield here
    subprocess.run(["fusermount", "-u", "-z", here], check=True)


def test_a_file_system_whose_wal_fails_at_the_first_statement(without_mmap: Path) -> None:
    """`PRAGMA journal_mode = WAL` succeeds there and the next statement fails: no run could begin."""

    async def work(ledger: Ledger) -> None:
        await ledger.commit([labelled(await ledger.last_seq())])
        async with await Ledger.open(ledger.path, read_only=True) as reader:
            assert (await reader.count_by_status())[Status.LABELLED] == await ledger.last_seq()

    for _ in range(2):
        with_ledger(without_mmap, work)


def test_a_ledger_that_was_moved_there_with_its_wal(without_mmap: Path, tmp_path: Path) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.commit([labelled(0)])
        for part in tmp_path.glob("ledger.db*"):
            shutil.copy(part, without_mmap / part.name)

    async def there(ledger: Ledger) -> None:
        assert (await ledger.count_by_status())[Status.LABELLED] == 1
        await ledger.commit([labelled(1)])

    with_ledger(tmp_path, work)
    assert (without_mmap / "ledger.db-wal").stat().st_size > 0
    with_ledger(without_mmap, there)
