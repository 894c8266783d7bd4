from __future__ import annotations

import asyncio
import csv
import gzip
import json
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
from reader_files import read_bytes, read_files

from pipeline.errors import InputError
from pipeline.readers import ReadProgress, Source, peek, read_records, resolve_sources
from pipeline.readers.dialect import LOOK_BYTES
from pipeline.records import Problem, Record

READ_STDIN = """
import asyncio, pathlib, sys
from pipeline.readers import read_records, resolve_sources
async def main():
    sources = resolve_sources("-", format=sys.argv[1], base=pathlib.Path())
    async for batch in read_records(sources, limit=int(sys.argv[2])):
        for record in batch:
            print(record.key, record.fields, record.problem and record.problem.message)
asyncio.run(main())
"""


def run_reader(choice: str, limit: str, data: bytes) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", READ_STDIN, choice, limit]
    return subprocess.run(command, input=data, capture_output=True, check=False)


def test_records_are_numbered_over_all_sources(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,text\nx,one\ny,two\n")
    (tmp_path / "b.jsonl").write_bytes(b'{"id": 7}\noops\n')
    records = read_files(["b.jsonl", "a.csv"], tmp_path, key="id", batch=1)

    assert [(record.source, record.ordinal, record.key, record.line) for record in records] == [
        ("b.jsonl", 0, "7", 1),
        ("b.jsonl", 1, "(b.jsonl:2)", 2),
        ("a.csv", 2, "x", 2),
        ("a.csv", 3, "y", 3),
    ]


def test_without_a_key_the_place_names_a_record() -> None:
    assert [record.key for record in read_bytes(b"a\n\nb\n", "in.txt")] == ["in.txt:1", "in.txt:3"]


@pytest.mark.parametrize(
    ("line", "key", "message"),
    [
        ('{"id": "a b"}', "a b", None),
        ('{"id": 0}', "0", None),
        ('{"id": 1.5}', "1.5", None),
        ('{"id": 1.0}', "1", None),
        ('{"id": "1"}', "1", None),
        ('{"id": -0.0}', "0", None),
        ('{"id": 1e20}', "100000000000000000000", None),
        ('{"id": 100000000000000000000}', "100000000000000000000", None),
        ('{"id": 1.5e-7}', "1.5e-07", None),
        ('{"id": true}', "true", None),
        ('{"id": "(a phone)"}', "(a phone)", None),
        ('{"id": "(in.jsonl:1)"}', "\\(in.jsonl:1)", None),
        ('{"id": "\\\\(in.jsonl:1)"}', "\\\\(in.jsonl:1)", None),
        ('{"id": ""}', "(in.jsonl:1)", "the key field 'id' is empty"),
        ('{"id": null}', "(in.jsonl:1)", "the key field 'id' is null"),
        ('{"ID": 1}', "(in.jsonl:1)", "the key field 'id' is missing; the fields are ID (did you mean 'ID'?)"),
        ('{"id": {}}', "(in.jsonl:1)", "the key field 'id' is a dict, not a name"),
    ],
)
def test_the_key_field_names_a_record(line: str, key: str, message: str | None) -> None:
    [record] = read_bytes(line.encode(), "in.jsonl", key="id")

    assert record.key == key
    assert record.fields == json.loads(line)
    assert record.problem == (Problem("no_key", f"in.jsonl, line 1: {message}") if message else None)


def test_limit_takes_the_first_records_good_or_not(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\noops\n{"a": 3}\n')
    (tmp_path / "b.jsonl").write_bytes(b'{"a": 4}\n{"a": 5}\n')

    def lines(limit: int) -> list[tuple[str, int]]:
        return [(record.source, record.line) for record in read_files("*.jsonl", tmp_path, limit=limit)]

    assert lines(0) == []
    assert lines(2) == [("a.jsonl", 1), ("a.jsonl", 2)]
    assert lines(4) == [("a.jsonl", 1), ("a.jsonl", 2), ("a.jsonl", 3), ("b.jsonl", 1)]
    assert len(lines(99)) == 5


def test_limit_reads_no_more_of_the_file_than_it_needs(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"some words\n" * 100_000)
    progress = ReadProgress()
    assert len(read_files("a.txt", tmp_path, limit=300, progress=progress, chunk_bytes=4096)) == 300
    assert progress.bytes_read <= LOOK_BYTES
    assert progress.estimate() == 300


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.jsonl.gz"])
def test_the_total_is_estimated_from_the_first_batch_on(tmp_path: Path, name: str) -> None:
    rows = [f"{number},text" if "csv" in name else json.dumps({"n": number}) for number in range(10_000, 60_000)]
    data = "\n".join((["n,text"] if "csv" in name else []) + rows).encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)

    async def main() -> tuple[list[int | None], ReadProgress]:
        progress = ReadProgress()
        batches = read_records(resolve_sources(name, base=tmp_path), progress=progress, chunk_bytes=16 * 1024)
        return [progress.estimate() async for _ in batches], progress

    estimates, progress = asyncio.run(main())
    assert all(estimate and 0.9 < estimate / 50_000 < 1.1 for estimate in estimates)
    assert progress.estimate() == progress.records == 50_000
    assert progress.bytes_read == progress.bytes_total


def test_there_is_no_estimate_without_a_size() -> None:
    assert ReadProgress(bytes_read=10, records=5).estimate() is None
    assert ReadProgress(bytes_total=10).estimate() is None


def test_peek_reads_the_first_records_only(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"id,text\n" + b'1,"a\nb"\n' * 200_000 + b"torn,")
    [source] = resolve_sources("a.csv", base=tmp_path)
    found = asyncio.run(peek(source, n=60))

    assert len(found) == 60
    assert found[0].fields == {"id": "1", "text": "a\nb"}
    with pytest.raises(InputError, match="stdin: cannot be examined"):
        asyncio.run(peek(Source("stdin", None, "jsonl", None)))


def test_a_file_that_vanishes_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\n")
    sources = resolve_sources("a.txt", base=tmp_path)
    path.unlink()

    async def main() -> list[list[Record]]:
        return [batch async for batch in read_records(sources)]

    with pytest.raises(InputError, match=r"a\.txt: cannot be read: No such file"):
        asyncio.run(main())


@pytest.mark.parametrize(
    ("choice", "limit", "data", "printed"),
    [
        ("auto", "9", b'\n {"a": 1}\n{"a": 2}', "stdin:2 {'a': 1} None\nstdin:3 {'a': 2} None\n"),
        ("auto", "9", gzip.compress(b'{"a": 1}\n', mtime=0), "stdin:1 {'a': 1} None\n"),
        ("csv", "9", b"\xef\xbb\xbfa,b\n1,2\n3\n", "stdin:2 {'a': '1', 'b': '2'} None\n"),
        ("text", "2", b"x\ny\nz\n", "stdin:1 {'text': 'x'} None\nstdin:2 {'text': 'y'} None\n"),
        ("auto", "9", b"", ""),
    ],
)
def test_stdin(choice: str, limit: str, data: bytes, printed: str) -> None:
    done = run_reader(choice, limit, data)
    assert done.stdout.decode().startswith(printed)
    assert done.stdout.count(b"\n") == printed.count("\n") + (choice == "csv")
    assert done.stderr == b""


def test_stdin_of_no_known_format_is_refused() -> None:
    done = run_reader("auto", "9", b"a,b\n1,2\n")
    assert b"InputError: stdin: its format cannot be determined; set input.format" in done.stderr


def test_a_silent_pipe_does_not_keep_the_process_from_ending() -> None:
    """The read of a pipe cannot be cancelled; in a thread of the loop's pool it would be waited for at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", READ_STDIN, "text", "1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin
    process.stdin.write(b"first line\nand then noth")
    process.stdin.flush()
    try:
        output = process.stdout.read() if process.stdout else b""
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.communicate()
    assert output == b"stdin:1 {'text': 'first line'} None\n"


def test_a_cancelled_read_of_a_silent_pipe_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    with os.fdopen(read_end) as silent, os.fdopen(write_end, "w"):
        monkeypatch.setattr(sys, "stdin", silent)

        async def main() -> None:
            read = asyncio.create_task(anext(read_records([Source("stdin", None, "text", None)])))
            for _ in range(40):  # so far that its thread reads
                await asyncio.sleep(0)
            assert any(thread.name == "labelpipe-wait" for thread in threading.enumerate())
            read.cancel()
            with pytest.raises(asyncio.CancelledError):
                await read

        asyncio.run(main())
        os.write(write_end, b"let the thread end\n")


def test_no_stdin_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="stdin: there is no standard input here"):
        read_files("-", Path(), format="text")


def peak_bytes(path: Path) -> int:
    async def main() -> int:
        count = 0
        async for batch in read_records(resolve_sources(path.name, base=path.parent)):
            count += len(batch)
        return count

    tracemalloc.start()
    try:
        count = asyncio.run(main())
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        assert count


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.jsonl.gz"])
def test_memory_is_flat_in_the_length_of_the_file(tmp_path: Path, name: str) -> None:
    def size_of_reading(count: int) -> int:
        path = tmp_path / name
        with gzip.open(path, "wt", compresslevel=1) if name.endswith(".gz") else path.open("w") as file:
            if "csv" in name:
                csv.writer(file).writerows([f"n{n}", f"some text\nof record {n}"] for n in range(count))
            else:
                file.writelines(f'{{"n": {n}, "text": "some text of record {n}"}}\n' for n in range(count))
        return peak_bytes(path)

    short, long = size_of_reading(3_000), size_of_reading(10_000)
    assert long < short + 2_000_000
    assert long < 12_000_000


def test_a_name_that_is_no_utf8_is_told_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "bad\udcff.csv").write_bytes(b"id\nx\n")
    for path in ("bad*.csv", "bad\udcff.csv"):
        [record] = read_files(path, tmp_path)
        assert (record.source, record.key) == ("bad\\xff.csv", "bad\\xff.csv:2")
