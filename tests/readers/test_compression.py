from __future__ import annotations

import bz2
import gzip
import lzma
import random
import sys

import pytest
import zstandard
from reader_files import fields, read_bytes, troubles
from test_formats import PACKERS

from pipeline.errors import InputError, MissingExtraError
from pipeline.readers import compression

_DICE = random.Random(1)
LINES = [f"{number} {_DICE.random()}" for number in range(7_000)]
PLAIN = "".join(f"{line}\n" for line in LINES).encode()
PACKINGS = [ending for ending in PACKERS if ending]


def texts(data: bytes, name: str, **choices: object) -> list[str]:
    return [each["text"] for each in fields(read_bytes(data, name, **choices))]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("chunk_bytes", [5000, 1 << 18])
def test_members_end_to_end_are_one_file(packing: str, chunk_bytes: int) -> None:
    pack = PACKERS[packing]
    data = pack(PLAIN[:1000]) + pack(b"") + pack(PLAIN[1000:])

    assert texts(data, f"in.txt{packing}", chunk_bytes=chunk_bytes) == LINES


def test_members_may_be_padded_with_zeros() -> None:
    data = gzip.compress(b"a\n") + b"\0" * 512 + gzip.compress(b"b\n") + b"\0" * 8
    assert texts(data, "in.txt.gz", chunk_bytes=11) == ["a", "b"]


@pytest.mark.parametrize("packing", PACKINGS)
def test_compression_is_known_by_content_too(packing: str) -> None:
    assert texts(PACKERS[packing](b"a\nb\n"), "in.txt") == ["a", "b"]


def test_text_that_begins_like_bz2_is_text() -> None:
    assert texts(b"BZh9 is how it begins\n", "in.txt") == ["BZh9 is how it begins"]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("chunk_bytes", [999, 1 << 18])
def test_a_truncated_file_gives_every_whole_line_and_says_so(packing: str, chunk_bytes: int) -> None:
    pack = PACKERS[packing]
    data = pack(PLAIN[:100_000]) + pack(PLAIN[100_000:])[:-200]
    records = read_bytes(data, f"in.txt{packing}", chunk_bytes=chunk_bytes)

    good = [each["text"] for each in fields(records)]
    assert good == LINES[: len(good)]
    # xz and bz2 give a block only when it is whole; gzip and zstd all that has come.
    assert len(good) > (LINES_IN_FIRST if packing in (".bz2", ".xz") else len(LINES) - 1000 if packing == ".gz" else 5)
    [(line, message)] = troubles(records)
    assert line == len(good) + 1
    assert message.startswith(f"in.txt{packing}, line {line}: the ")
    assert message.endswith("data are cut off here: the file is not complete")
    assert records[-1].problem
    assert LINES[len(good)].startswith(records[-1].fields["raw"])


LINES_IN_FIRST = PLAIN[:100_000].count(b"\n") - 1


@pytest.mark.parametrize(("packing", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_a_damaged_second_member_costs_nothing_of_the_first(packing: str, pack: object) -> None:
    assert callable(pack)
    broken = bytearray(pack(PLAIN[100_000:]))
    broken[12:40] = bytes(28)
    records = read_bytes(pack(PLAIN[:100_000]) + broken, f"in.txt{packing}")

    good = [each["text"] for each in fields(records)]
    assert len(good) >= LINES_IN_FIRST
    assert good[:LINES_IN_FIRST] == LINES[:LINES_IN_FIRST]
    [(line, message)] = troubles(records)
    assert line == len(good) + 1
    assert "data are damaged here and the rest is lost: " in message


def test_a_wrong_checksum_costs_no_line_of_a_gzip_file() -> None:
    data = bytearray(gzip.compress(PLAIN))
    data[-8] ^= 1
    records = read_bytes(bytes(data), "in.txt.gz")

    assert [each["text"] for each in fields(records)] == LINES
    [(line, message)] = troubles(records)
    assert line == len(LINES) + 1
    assert "the gzip data are damaged here" in message


@pytest.mark.parametrize("name", ["in.jsonl.gz", "in.csv.gz"])
def test_a_torn_record_is_not_handed_on(name: str) -> None:
    whole = {"in.jsonl.gz": b'{"a": 1}\n{"a": 22}', "in.csv.gz": b'a,b\n1,2\n"torn\nrec'}[name]
    stream = gzip.compress(whole)[:-8]
    records = read_bytes(stream, name, chunk_bytes=3)

    assert len(fields(records)) == 1
    [(line, _)] = troubles(records)
    assert line == (2 if name == "in.jsonl.gz" else 3)
    assert records[-1].fields == {"raw": '{"a": 22}' if name == "in.jsonl.gz" else '"torn\nrec'}


def test_whole_csv_records_behind_a_long_one_are_not_lost_with_the_torn_one() -> None:
    long = '"' + "x\n" * 10_000 + '"'
    data = gzip.compress(f"a\n{long}\n1\n2\n".encode())[:-4]
    records = read_bytes(data, "in.csv.gz", chunk_bytes=10)

    assert [each["a"] for each in fields(records)] == ["x\n" * 10_000, "1", "2"]
    assert len(troubles(records)) == 1


def test_garbage_after_the_end_is_told() -> None:
    records = read_bytes(gzip.compress(b"a\nb\n") + b"garbage", "in.txt.gz")

    assert [each["text"] for each in fields(records)] == ["a", "b"]
    assert "line 3: the gzip data are damaged here" in troubles(records)[0][1]


@pytest.mark.parametrize("packing", PACKINGS)
def test_a_file_cut_within_its_first_bytes_is_told(packing: str) -> None:
    records = read_bytes(PACKERS[packing](b"a\n")[:3], f"in.txt{packing}")
    assert "data are cut off here: the file is not complete" in troubles(records)[0][1]


def test_a_name_that_does_not_fit_the_content_is_refused() -> None:
    with pytest.raises(InputError, match=r"in.txt.gz: named like a gzip file, but its content is not gzip; rename it"):
        read_bytes(b"only plain text here\n", "in.txt.gz")


def test_zstd_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    data = zstandard.compress(b"a\n")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(MissingExtraError, match=r"labelpipe\[zstd\]"):
        read_bytes(data, "in.txt.zst")


@pytest.mark.parametrize("kind", ["gzip", "bz2", "xz", "zstd"])
def test_a_little_that_becomes_much_comes_in_bounded_steps(kind: str) -> None:
    size = 48 * 1024 * 1024
    data = {
        "gzip": lambda plain: gzip.compress(plain, 6),
        "bz2": bz2.compress,
        "xz": lambda plain: lzma.compress(plain, preset=1),
        "zstd": lambda plain: zstandard.ZstdCompressor().compress(plain),
    }[kind](bytes(size))
    assert len(data) < 100_000
    blocks = list(compression.Inflater(kind).feed(data))

    assert sum(len(block) for block, _ in blocks) == size
    assert sum(taken for _, taken in blocks) == len(data)
    most = compression.BLOCK_BYTES + max(compression.STEP_BYTES, compression.ZSTD_BYTES // 4 * 128 * 1024)
    assert max(len(block) for block, _ in blocks) <= most


def test_an_xz_file_that_wants_too_much_memory_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    wanting = lzma.compress(b"text", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 512 * 1024 * 1024}])
    [record] = read_bytes(wanting, "in.txt.xz")
    assert record.problem
    assert "Memory usage limit" in record.problem.message
