"""What can be read only once is read once, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from reader_files import fields, read_files

from pipeline.errors import InputError
from pipeline.readers import peek, resolve_sources, stream


def feeding(path: Path, *parts: bytes) -> threading.Thread:
    def write() -> None:
        with path.open("wb", buffering=0) as pipe:
            for part in parts:
                pipe.write(part)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("p.csv", [b"id;te", b'xt\n1;a\n2;"b', b'\nc"\n']),
        ("p.jsonl", [b'{"id": "1", "text": "a"}\n{"id": "2", ', b'"text": "b\\nc"}']),
        ("p", [b'\n{"id": "1", "text": "a"}\n', b'{"id": "2", "text": "b\\nc"}']),
    ],
)
def test_a_pipe_is_read_once_from_its_first_byte(tmp_path: Path, name: str, parts: list[bytes]) -> None:
    os.mkfifo(tmp_path / name)
    [source] = resolve_sources(name, base=tmp_path)
    assert source.single_pass
    with pytest.raises(InputError, match="can be read only once"):
        asyncio.run(peek(source))
    writer = feeding(tmp_path / name, *parts)
    assert fields(read_files(name, tmp_path)) == [{"id": "1", "text": "a"}, {"id": "2", "text": "b\nc"}]
    writer.join()


def test_a_shells_pipes_have_names_that_stay() -> None:
    pairs = [os.pipe() for _ in range(2)]
    paths = [f"/dev/fd/{read}" for read, _ in pairs]
    for number, (_, write) in enumerate(pairs):
        os.write(write, b'{"n": %d}\n' % number)
        os.close(write)
    records = read_files(paths, Path(), format="jsonl")
    assert [(record.key, record.fields) for record in records] == [("pipe:1", {"n": 0}), ("pipe-2:1", {"n": 1})]
    for read, _ in pairs:
        os.close(read)


def test_a_pipe_without_a_writer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "p.csv")
    monkeypatch.setattr(stream, "WRITER_WAIT_S", 0.05)
    with pytest.raises(InputError, match=r"p\.csv: nothing was written into this pipe for 0\.05 s"):
        read_files("p.csv", tmp_path)


def test_waiting_for_a_writer_can_be_given_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.csv")

    async def main() -> None:
        task = asyncio.create_task(asyncio.to_thread(lambda: None))
        await task
        reading = asyncio.ensure_future(anext(stream._pipe_chunks(tmp_path / "p.csv", "p.csv", 10)))
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(main())  # it ends, though the thread still waits
    os.close(os.open(tmp_path / "p.csv", os.O_RDWR | os.O_NONBLOCK))
