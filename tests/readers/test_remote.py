from __future__ import annotations

import asyncio
import gzip
import io
import os
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reader_files import fields, read_files
from reader_servers import Site, serving

from pipeline.errors import InputError, MissingExtraError
from pipeline.readers import ReadProgress, formats, peek, read_records, remote, resolve_sources, stream

ROWS = [{"n": number, "text": f"text {number}"} for number in range(2000)]
LINES = b"".join(b'{"n": %d, "text": "text %d"}\n' % (number, number) for number in range(2000))


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(a__jsonl=LINES, a__jsonl__gz=gzip.compress(LINES), b__csv=b"id,text\n1,x\n", odd=LINES) as found:
        yield found


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    yield system
    system.store.clear()


def read(path: str | list[str], **choices: Any) -> list[Any]:
    return read_files(path, Path(), **choices)


def refusal(path: str | list[str], **choices: Any) -> str:
    with pytest.raises(InputError) as caught:
        read(path, **choices)
    return str(caught.value)


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "odd", "a.jsonl?token=1"])
def test_a_web_server_gives_records(name: str, ranges: bool, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "REQUEST_BYTES", 4096)
    site.ranges = ranges
    progress = ReadProgress()
    records = read(f"{site.address}/{name}", progress=progress, chunk_bytes=1000)
    assert fields(records) == ROWS
    assert records[7].key == f"{site.address}/{name}:8"
    assert progress.bytes_read == progress.bytes_total == len(site.files[f"/{name.partition('?')[0]}"])
    assert ("all" in site.asked) == (not ranges)


def test_a_server_that_says_no_size_is_read_in_one_go(site: Site) -> None:
    site.sized = site.ranges = False
    assert fields(read(f"{site.address}/a.jsonl")) == ROWS
    [source] = resolve_sources(f"{site.address}/a.jsonl", base=Path())
    assert source.size_bytes is None


def test_a_part_that_does_not_come_is_asked_for_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "REQUEST_BYTES", 4096)
    monkeypatch.setattr(remote, "WAITS_S", (0.01,) * 3)
    for module in (stream, formats):
        monkeypatch.setattr(module, "LOOK_BYTES", 4096)
    sources = resolve_sources(f"{site.address}/a.jsonl", base=Path())

    async def main(failures: int) -> list[Any]:
        found: list[Any] = []
        async with aclosing(read_records(sources, batch=10, chunk_bytes=4096)) as batches:
            async for batch in batches:
                if not found:
                    site.fail_next = failures
                found += [record.fields for record in batch]
        return found

    assert asyncio.run(main(3)) == ROWS
    with pytest.raises(InputError, match=r"a\.jsonl: cannot be read: ClientResponseError: 503"):
        asyncio.run(main(100))


@given(st.binary(max_size=300), st.integers(1, 70), st.booleans())
def test_any_bytes_come_through_in_any_blocks(data: bytes, size: int, ranges: bool) -> None:
    system = fsspec.filesystem("memory")
    system.pipe("/any", data)
    [source] = resolve_sources("memory://any", format="text", base=Path())
    assert source.blocks
    found = remote._RemoteFile(system, "/any", "x", {"size": len(data), "partial": ranges})

    async def main() -> bytes:
        return b"".join([block async for block in remote._blocks(found, size)])

    assert asyncio.run(main()) == data


def test_globs_are_read_in_their_order(memory: Any) -> None:
    for name in ("part-10", "part-2", "sub/part-1"):
        memory.pipe(f"/in/{name}.jsonl", b'{"name": "%s"}\n' % name.encode())
    names = ["memory:///in/part-2.jsonl", "memory:///in/part-10.jsonl", "memory:///in/sub/part-1.jsonl"]
    assert [source.name for source in resolve_sources("memory://in/*.jsonl", base=Path())] == names[:2]
    assert [source.name for source in resolve_sources("memory://in/**/*.jsonl", base=Path())] == names
    assert [record.fields["name"] for record in read("memory://in/**/*.jsonl")] == ["part-2", "part-10", "sub/part-1"]
    assert "no file matches 'memory://in/*.csv'" in refusal("memory://in/*.csv")
    assert "given twice" in refusal(["memory://in/*.jsonl", "memory://in/part-2.jsonl"])


def test_local_and_remote_files_are_read_together(memory: Any, tmp_path: Path) -> None:
    memory.pipe("/a.csv", b"id\n1\n")
    (tmp_path / "b.csv").write_bytes(b"id\n2\n")
    (tmp_path / "c.csv").write_bytes(b"id\n3\n")
    paths = ["memory://a.csv", "b.csv", f"file://{tmp_path.as_posix()}/c.csv"]
    assert [record.fields["id"] for record in read_files(paths, tmp_path)] == ["1", "2", "3"]


def test_parquet_is_read_in_parts(memory: Any, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    held = io.BytesIO()
    pq.write_table(
        pa.table({"n": list(range(3000)), "noise": [os.urandom(99) for _ in range(3000)]}), held, row_group_size=500
    )
    memory.pipe("/a.parquet", held.getvalue())
    site.files["/a.parquet"] = held.getvalue()
    progress = ReadProgress()
    for address in ("memory://a.parquet", f"{site.address}/a.parquet"):
        assert [record.fields["n"] for record in read(address, progress=progress)] == list(range(3000))
        assert progress.exact_total == 3000
    monkeypatch.setattr(remote, "REQUEST_BYTES", 4096)
    monkeypatch.setattr(remote, "WAITS_S", (0.01,) * 3)
    site.ranges = False
    assert "Parquet is read in parts, which the server does not give" in refusal(f"{site.address}/a.parquet")
    site.sized = False
    assert "Parquet is read in parts, which this server cannot send; download it first" in refusal(
        f"{site.address}/a.parquet"
    )
    site.sized = site.ranges = True
    [source] = resolve_sources(f"{site.address}/a.parquet", base=Path())
    site.fail_next = 3
    assert len(asyncio.run(peek(source, n=1))) == 1
    site.fail_next = 1000
    with pytest.raises(InputError, match=r"a\.parquet: cannot be read: ClientResponseError: 503"):
        asyncio.run(peek(source, n=1))


def test_the_stamp_tells_a_change(site: Site, memory: Any) -> None:
    def stamp(address: str) -> Any:
        return resolve_sources(address, base=Path())[0].stamp()

    address = f"{site.address}/a.jsonl"
    before = stamp(address)
    assert before == stamp(address) == {"name": address, "size_bytes": len(LINES), "ETag": '"1"'}
    site.etag = '"2"'
    assert stamp(address) != before
    site.etag = ""
    assert stamp(address) is None, "a size alone tells too little"


def test_what_cannot_be_read_says_so(site: Site, tmp_path: Path) -> None:
    assert refusal(f"{site.address}/none.csv") == f"input.path: '{site.address}/none.csv' cannot be read: no such file"
    assert "http is read from this machine only; use https" in refusal("http://example.org/a.csv")
    assert "nosuch" in refusal("nosuch://x/a.csv")
    site.files["/x"] = b"some text\n"
    assert "set input.format" in refusal(f"{site.address}/x")


@pytest.mark.parametrize("secret", [False, True])
def test_the_true_reason_is_told_not_that_there_is_no_file(secret: bool, site: Site) -> None:
    """fsspec calls whatever goes wrong a file that is not there."""

    def told(address: str) -> str:
        with pytest.raises(InputError) as caught:
            resolve_sources(address, base=Path(), secret=secret)
        assert "s3cret" not in str(caught.value) or not secret
        assert "no such file" not in str(caught.value)
        return str(caught.value)

    for status in (401, 403, 429, 500):
        site.status = status
        assert f" {status}" in told(f"{site.address}/a.jsonl?sig=s3cret")
    site.status = 403
    assert "is a signature or a key missing" in told(f"{site.address}/a.jsonl")
    assert "does the server speak https" in told(f"{site.address.replace('http', 'https')}/a.jsonl?sig=s3cret")
    with serving() as gone:
        pass
    assert "nobody listens there" in told(f"{gone.address}/a.csv?sig=s3cret")
    assert "name is not known" in told("https://nothing.invalid/a.csv?sig=s3cret")


def test_a_server_that_is_down_for_a_moment_is_asked_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the time of the first read its size is known no more, which fsspec calls a missing file too."""
    monkeypatch.setattr(remote, "WAITS_S", (0.01,) * 3)
    asked: list[int] = []

    def ask() -> str:
        asked.append(1)
        if len(asked) < 3:
            raise FileNotFoundError("a") from ConnectionRefusedError()
        return "here"

    found = remote._RemoteFile(None, "a", "a", {})
    assert asyncio.run(remote._retry_in_thread(ask, found)) == "here"
    with pytest.raises(InputError, match="no such file"):
        asyncio.run(remote._retry_in_thread(lambda: open("/nothing/at/all"), found))  # noqa: PTH123, SIM115


def test_secrets_in_an_address_are_not_shown(site: Site) -> None:
    address = f"{site.address.replace('//', '//me:pa55word@')}/a.jsonl?sig=s3cret"
    sources = resolve_sources(address, base=Path(), secret=True)
    assert sources[0].name == f"{site.address}/a.jsonl"
    assert asyncio.run(peek(sources[0], n=1))[0].key == f"{site.address}/a.jsonl:1"
    with pytest.raises(InputError) as caught:
        resolve_sources(address.replace("a.jsonl", "none.jsonl"), base=Path(), secret=True)
    for text in (repr(sources), str(sources[0].stamp()), str(caught.value)):
        assert "pa55word" not in text
        assert "s3cret" not in text


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    # fsspec keeps what other tests of this process have used.
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(
        MissingExtraError, match=r"input.path: s3:// needs an optional package: pip install 'labelpipe\[s3\]'"
    ):
        resolve_sources("s3://bucket/a.csv", base=Path())
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(MissingExtraError, match=r"labelpipe\[remote\]"):
        resolve_sources("https://example.org/a.csv", base=Path())
