"""Snapshots at an address: the last whole one counts, and whoever has taken the shard over last."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from pipeline.errors import StoreError
from pipeline.leases import LeaseClient
from pipeline.shards import singleshard
from pipeline.shards.snapshots import FencedError, ShardSnapshot, SnapshotStore, SnapshotSync, restore
from pipeline.store import Ledger


@pytest.fixture
def address(tmp_path: Path) -> str:
    return (tmp_path / "there").as_uri()


def machine(folder: Path, address: str, fence: int) -> SnapshotSync:
    """A process on a machine that has taken the shard over."""
    shard = folder / "01"
    shard.mkdir(parents=True, exist_ok=True)
    return SnapshotSync(SnapshotStore(address, "run"), shard, "run", fence)


def put(folder: Path, value: str) -> None:
    """Something in the ledger of a machine."""

    async def main() -> None:
        async with await Ledger.open(folder / "01" / "ledger.db") as ledger:
            await ledger.meta_set("test", value)

    asyncio.run(main())


def got(folder: Path) -> str:
    with sqlite3.connect(folder / "01" / "ledger.db") as connection:
        return str(connection.execute("SELECT value FROM meta WHERE key = 'test'").fetchone()[0])


def test_a_shard_goes_on_from_the_last_state(tmp_path: Path, address: str) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    one = machine(first, address, 1)
    assert not one.resume((0, 0)), "there is none"
    for value in ("early", "late"):
        put(first, value)
        one.save()
    put(first, "not saved")
    other = machine(second, address, 2)
    assert other.resume((3 * 10**12, 5))
    assert got(second) == "late"
    with sqlite3.connect(second / "01" / "ledger.db") as connection:
        [(spent,)] = connection.execute("SELECT value FROM meta WHERE key = 'budget'")
    assert spent == '{"usd":3.0,"tokens":5}', "what the lost process may have paid for counts"
    files = sorted(path.name for path in (tmp_path / "there" / "run" / "01").iterdir())
    assert files == ["000002-000001.json", "000002-000001.zip"], "older states go"


def test_who_was_taken_over_from_saves_nothing_and_its_folder_is_not_gone_on_with(tmp_path: Path, address: str) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    one, other = machine(first, address, 1), machine(second, address, 2)
    one.resume((0, 0))
    put(first, "first")
    one.save()
    other.resume((0, 0))
    put(first, "nobody's")
    with pytest.raises(FencedError, match=r"number 2, this one is number 1"):
        one.save()
    # What it had begun to save before it could know counts for nothing either.
    archive = tmp_path / "archive"
    archive.write_bytes(b"late")
    SnapshotStore(address, "run").save("01", ShardSnapshot(1, 9, has_ledger=True, is_over=True), archive)
    assert SnapshotStore(address, "run").last("01") == ShardSnapshot(2, 1, has_ledger=True, is_over=False)
    put(second, "second")
    other.save(is_over=True)
    assert machine(first, address, 3).resume((0, 0))
    assert got(first) == "second"
    assert (first / "01.old-1" / "ledger.db").exists(), "what was paid for is kept"


def test_its_own_folder_knows_more_than_its_last_state(tmp_path: Path, address: str) -> None:
    one = machine(tmp_path, address, 1)
    one.resume((0, 0))
    put(tmp_path, "saved")
    one.save()
    put(tmp_path, "not saved")
    assert not machine(tmp_path, address, 2).resume((0, 0))
    assert got(tmp_path) == "not saved"


def test_a_save_that_is_cut_off_leaves_the_state_before(tmp_path: Path, address: str) -> None:
    one = machine(tmp_path / "a", address, 1)
    one.resume((0, 0))
    put(tmp_path / "a", "whole")
    one.save()
    there = tmp_path / "there" / "run" / "01"
    (there / "000001-000003.zip").write_bytes(b"half")  # killed before the note
    (there / "000001-000004.json").write_bytes(b'{"fence": 1, "num')  # killed in the note
    copy = tmp_path / "b" / "01"
    copy.mkdir(parents=True)
    for _ in range(2):  # a second time there is nothing to fetch
        assert restore(SnapshotStore(address, "run"), copy, "run")
        assert got(tmp_path / "b") == "whole"
    put(tmp_path / "a", "whole again")
    one.save(is_over=True)
    assert restore(SnapshotStore(address, "run"), copy, "run")
    assert got(tmp_path / "b") == "whole again"


def test_an_unchanged_ledger_is_not_saved_again(tmp_path: Path, address: str) -> None:
    one = machine(tmp_path, address, 1)
    one.resume((0, 0))
    put(tmp_path, "something")
    for _ in range(3):
        one.save()
    assert SnapshotStore(address, "run").last("01") == ShardSnapshot(1, 2, has_ledger=True, is_over=False)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(StoreError, match=r"scale\.folder = file://.* cannot be"):
        machine(tmp_path / "a", (tmp_path / "file").as_uri(), 1).resume((0, 0))


def test_a_shard_sends_nothing_while_it_cannot_save(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what a lost machine costs would have no bound. Once it can save again, it does so as often as before."""
    monkeypatch.setattr(singleshard, "RETRY_S", 0.01)
    synced, lease = machine(tmp_path, address, 1), LeaseClient("http://127.0.0.1:1", "token", 1, 2)
    synced.resume((0, 0))
    there, away = tmp_path / "there", tmp_path / "away"

    async def until(held: bool) -> None:
        async with asyncio.timeout(20):
            while lease.is_on_hold is not held:
                await asyncio.sleep(0.005)

    async def main() -> list[float]:
        task, waits = asyncio.create_task(singleshard.save_for_ever(synced, 0.02, lease)), list[float]()
        there.rename(away)
        there.write_text("in the way", encoding="utf-8")
        await until(held=True)
        there.unlink()
        away.rename(there)
        await until(held=False)
        sleep = asyncio.sleep

        async def noted(seconds: float) -> None:
            waits.append(seconds)
            await sleep(seconds)

        monkeypatch.setattr(asyncio, "sleep", noted)
        async with asyncio.timeout(20):
            while not waits:
                await sleep(0.005)
        task.cancel()
        await asyncio.wait({task})
        return waits

    assert asyncio.run(main())[0] == 0.02
