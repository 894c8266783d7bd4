from __future__ import annotations

import asyncio
import datetime
import decimal
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reader_files import fields, read_bytes, read_files, troubles

from pipeline import codec
from pipeline.errors import InputError, MissingExtraError
from pipeline.readers import ReadProgress, peek, resolve_sources


def write(path: Path, columns: dict[str, Any], **choices: Any) -> None:
    pq.write_table(pa.table(columns), path, **choices)


def test_rows_become_records(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"id": list(range(5000)), "text": [f"t{n}" for n in range(5000)]}, row_group_size=700)
    progress = ReadProgress()
    records = read_files("a.parquet", tmp_path, key="id", progress=progress, batch=100)

    assert [record.fields for record in records] == [{"id": n, "text": f"t{n}"} for n in range(5000)]
    assert [record.key for record in records] == [str(n) for n in range(5000)]
    assert (records[0].line, records[-1].line) == (1, 5000)
    assert records[7].digest == codec.digest64(codec.column_names_digest(["id", "text"]) + b'[7,"t7"]')
    assert progress.bytes_read == progress.bytes_total == (tmp_path / "a.parquet").stat().st_size


def test_values_that_json_does_not_know_become_text(tmp_path: Path) -> None:
    stamp = datetime.datetime(2026, 11, 22, 12, 30, tzinfo=datetime.UTC)
    nested = pa.struct({"stamps": pa.list_(pa.timestamp("ns")), "n": pa.int64()})
    columns = {
        "decimal": pa.array([decimal.Decimal("1.10")]),
        "date": pa.array([datetime.date(2026, 1, 2)]),
        "time": pa.array([datetime.time(1, 2, 3)]),
        "stamp": pa.array([stamp]),
        "nanoseconds": pa.array([1], pa.timestamp("ns")),
        "far": pa.array([2**39], pa.timestamp("s")),
        "farther": pa.array([2**50], pa.timestamp("s")),
        "far_span": pa.array([1], pa.duration("ns")),
        "nested": pa.array([{"stamps": [1, None], "n": 2}], nested),
        "span": pa.array([datetime.timedelta(seconds=90)]),
        "text_bytes": pa.array(["é".encode()]),
        "bytes": pa.array([b"\xff\x00"]),
        "nan": pa.array([float("nan")]),
        "infinite": pa.array([float("-inf")]),
        "list": pa.array([[decimal.Decimal("2.5"), None]]),
        "struct": pa.array([{"day": datetime.date(2026, 1, 2), "n": 1}]),
        "map": pa.array([[("k", 1.5)]], pa.map_(pa.string(), pa.float64())),
        "none": pa.array([None], pa.string()),
        "word": pa.array(["a"]).dictionary_encode(),
        "flag": pa.array([True]),
    }
    write(tmp_path / "a.parquet", columns)
    [record] = read_files("a.parquet", tmp_path)

    assert record.fields == {
        "decimal": "1.10",
        "date": "2026-01-02",
        "time": "01:02:03",
        "stamp": "2026-11-22T12:30:00+00:00",
        "nanoseconds": "1970-01-01T00:00:00.000000001",
        "far": "19391-01-25T12:18:08.000",
        "farther": str(2**50 * 1000),
        "far_span": "1",
        "nested": {"stamps": ["1970-01-01T00:00:00.000000001", None], "n": 2},
        "span": "0:01:30",
        "text_bytes": "é",
        "bytes": "/wA=",
        "nan": None,
        "infinite": "-inf",
        "list": ["2.5", None],
        "struct": {"day": "2026-01-02", "n": 1},
        "map": [["k", 1.5]],
        "none": None,
        "word": "a",
        "flag": True,
    }
    assert codec.loads(codec.dumps(record.fields)) == record.fields


def test_the_total_is_known_before_the_first_row_where_all_is_parquet(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"n": list(range(30))})
    write(tmp_path / "b.parquet", {"n": list(range(12))})
    (tmp_path / "c.jsonl").write_bytes(b'{"n": 1}\n')

    def first_estimate(path: list[str], limit: int | None = None) -> int | None:
        from pipeline.readers import read_records

        async def main() -> int | None:
            progress = ReadProgress()
            batches = read_records(resolve_sources(path, base=tmp_path), progress=progress, batch=5, limit=limit)
            await anext(batches)
            await batches.aclose()
            return progress.estimate()

        return asyncio.run(main())

    assert first_estimate(["a.parquet", "b.parquet"]) == 42
    assert first_estimate(["a.parquet", "b.parquet"], limit=7) == 7
    assert read_files(["a.parquet", "c.jsonl"], tmp_path)[-1].ordinal == 30


def test_peek_reads_the_first_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"n": list(range(5000))})
    [source] = resolve_sources("a.parquet", base=tmp_path)
    assert fields(asyncio.run(peek(source, n=3))) == [{"n": 0}, {"n": 1}, {"n": 2}]


def test_an_empty_table_has_no_records(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"n": pa.array([], pa.int64())})
    assert read_files("a.parquet", tmp_path) == []


def test_what_is_no_parquet_is_refused() -> None:
    with pytest.raises(InputError, match=r"in\.parquet: not a Parquet file that can be read"):
        read_bytes(b"id,text\n1,2\n", "in.parquet")


def test_columns_of_one_name_are_told_apart_as_in_a_csv(tmp_path: Path) -> None:
    columns = pa.Table.from_arrays([pa.array([at]) for at in range(3)], names=["a", "a", ""])
    pq.write_table(columns, tmp_path / "twice.parquet")
    (tmp_path / "set").mkdir()
    with pa.OSFile(str(tmp_path / "set/data.arrow"), "wb") as file, pa.ipc.new_stream(file, columns.schema) as stream:
        stream.write_table(columns)
    (tmp_path / "set/state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    for name in ("twice.parquet", "set"):
        progress = ReadProgress()
        assert fields(read_files(name, tmp_path, progress=progress)) == [{"a": 0, "a_2": 1, "column_3": 2}]
        assert f"{name}: two columns are named 'a': column 2 is called 'a_2'" in progress.format_notes()


def test_damage_in_the_middle_costs_what_is_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write(path, {"n": list(range(6000))}, row_group_size=2000, use_dictionary=False, compression="zstd")
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + 400] = b"\xff" * 400
    path.write_bytes(data)
    records = read_files("a.parquet", tmp_path)

    assert [record.fields["n"] for record in records[:-1]] == list(range(len(records) - 1))
    assert 1 < len(records) <= 2001
    [(row, message)] = troubles(records)
    assert row == len(records)
    assert message.startswith(f"a.parquet, row {row}: the Parquet data are damaged here and the rest is lost: ")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.parquet", {"n": [1]})
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"labelpipe\[parquet\]"):
        read_files("a.parquet", tmp_path)


def test_a_value_that_cannot_be_had_spoils_its_row_alone(tmp_path: Path) -> None:
    """Arrow takes any bytes for a text; Python takes no time zone that is not known."""
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 1, 3, 4)))
    texts = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"a\xe9\xe9c"))
    lists = pa.ListArray.from_arrays(
        pa.array([0, 0, 1, 3]), pa.StringArray.from_buffers(3, offsets, texts.buffers()[2])
    )
    columns = {"id": ["x", "y", "z"], "text": texts}
    zones = pa.array([0, 1, 2], pa.timestamp("s", tz="Moon/Crater"))
    write(tmp_path / "a.parquet", columns)
    write(tmp_path / "b.parquet", {"nested": lists})
    write(tmp_path / "c.parquet", {"at": zones})

    records = read_files("a.parquet", tmp_path, key="id")
    assert [record.fields for record in records if record.problem is None] == [
        {"id": "x", "text": "a"},
        {"id": "z", "text": "c"},
    ]
    assert troubles(records) == [(2, "a.parquet, row 2: 'text': not valid UTF-8")]
    assert records[1].fields == {"id": "y", "text": "\ufffd\ufffd"}
    assert [line for line, _ in troubles(read_files("b.parquet", tmp_path))] == [3]
    assert len(read_files("c.parquet", tmp_path)) == 3
