from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reader_files import fields, read_files, troubles

from pipeline.errors import InputError
from pipeline.readers import ReadProgress, peek, resolve_sources

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def save(folder: Path, *tables: Any, batch: int = 1000, **state: Any) -> None:
    """A folder as `Dataset.save_to_disk` leaves it: a stream of record batches a file, beside two JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"data-{at:05}-of-{len(tables):05}.arrow" for at in range(len(tables))]
    for name, table in zip(names, tables, strict=True):
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table, max_chunksize=batch)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "x", "_split": "train", **state}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))


def test_rows_become_records(tmp_path: Path) -> None:
    first = pa.table({"id": list(range(2500)), "label": [number % 2 for number in range(2500)]})
    second = pa.table({"id": [2500], "label": [1]})
    save(tmp_path / "set", first, second)
    progress = ReadProgress()
    records = read_files("set", tmp_path, progress=progress, batch=100)

    assert fields(records) == [{"id": number, "label": number % 2} for number in range(2500)] + [
        {"id": 2500, "label": 1}
    ]
    assert [records[0].key, records[-1].key, records[-1].line] == ["set:1", "set:2501", 2501]
    assert progress.exact_total == 2501
    assert progress.bytes_read == progress.bytes_total
    assert [record.key for record in read_files("se*", tmp_path, format="dataset", key="id", limit=2)] == ["0", "1"]


def test_pictures_and_sounds_become_data_urls(tmp_path: Path) -> None:
    held = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    wav = b"RIFF\0\0\0\0WAVEfmt "
    table = pa.table(
        {
            "photo": pa.array([{"bytes": PNG, "path": "a.png"}, {"bytes": None, "path": "b.png"}, None], held),
            "sounds": pa.array([[{"bytes": wav, "path": None}], [], None], pa.list_(held)),
            "other": pa.array([{"bytes": b"??", "path": "x.tiff"}, {"bytes": b"??", "path": None}, None], held),
            "nested": [{"deep": [1, 2]}, None, {"deep": []}],
        }
    )
    save(tmp_path / "set", table)
    first, second, third = fields(read_files("set", tmp_path))
    assert first["photo"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    assert first["sounds"] == [f"data:audio/wav;base64,{base64.b64encode(wav).decode()}"]
    assert first["other"].startswith("data:image/tiff;base64,")
    assert (second["photo"], second["sounds"], second["nested"]) == ("b.png", [], None)
    assert second["other"].startswith("data:application/octet-stream;base64,")
    assert third == {"photo": None, "sounds": None, "other": None, "nested": {"deep": []}}


@given(
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(), st.lists(st.floats(allow_nan=False)))),
    st.integers(1, 4),
)
def test_values_go_through_as_they_are(rows: list[tuple[int, str, list[float]]], batch: int) -> None:
    import math
    from tempfile import TemporaryDirectory

    rows = [(number, text, [one for one in many if math.isfinite(one)]) for number, text, many in rows]
    kinds = (pa.int64(), pa.string(), pa.list_(pa.float64()))
    columns = {str(at): pa.array([row[at] for row in rows], kind) for at, kind in enumerate(kinds)}
    with TemporaryDirectory() as name:
        save(Path(name) / "set", pa.table(columns), batch=batch)
        assert [tuple(each.values()) for each in fields(read_files("set", Path(name)))] == rows


def test_a_batch_of_photos_is_not_held_at_once(tmp_path: Path) -> None:
    held = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    photos = [{"bytes": PNG + os.urandom(1024 * 1024), "path": None} for _ in range(20)]
    save(tmp_path / "set", pa.table({"photo": pa.array(photos, held)}))
    [source] = resolve_sources("set", base=tmp_path)

    async def main() -> list[int]:
        from pipeline.readers import read_records

        return [len(batch) async for batch in read_records([source])]

    sizes = asyncio.run(main())
    assert sum(sizes) == 20
    assert max(sizes) <= 4


def test_splits_are_named(tmp_path: Path) -> None:
    save(tmp_path / "set/train", pa.table({"n": [1]}))
    save(tmp_path / "set/test", pa.table({"n": [2]}))
    (tmp_path / "set/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert fields(read_files(["set/test", "set/train"], tmp_path)) == [{"n": 2}, {"n": 1}]
    with pytest.raises(InputError, match=r"'set' has the splits train, test; name one, as in 'set/train'"):
        read_files("set", tmp_path)


def test_the_stamp_and_the_peek(tmp_path: Path) -> None:
    save(tmp_path / "set", pa.table({"n": [1, 2, 3]}))
    [source] = resolve_sources("set", base=tmp_path)
    before = source.stamp()
    assert json.loads(json.dumps(before)) == before
    assert fields(asyncio.run(peek(source, n=2))) == [{"n": 1}, {"n": 2}]
    os.utime(tmp_path / "set/data-00000-of-00001.arrow", (1, 1))
    assert source.stamp() != before


def test_a_damaged_file_costs_what_is_behind_it(tmp_path: Path) -> None:
    save(tmp_path / "set", pa.table({"n": list(range(3000))}), batch=100)
    path = tmp_path / "set/data-00000-of-00001.arrow"
    path.write_bytes(path.read_bytes()[:9000])
    records = read_files("set", tmp_path)
    [(row, message)] = troubles(records)
    assert 1 < row == len(records) < 3000
    assert message.startswith(f"set, row {row}: data-00000-of-00001.arrow is damaged here and the rest is lost: ")


def test_what_is_no_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    for name, text in {"a": "{", "b": "[]", "c": "{}"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text(text)
    save(tmp_path / "picked", pa.table({"n": [1]}), _indices_data_files=[{"filename": "indices.arrow"}])
    save(tmp_path / "gone", pa.table({"n": [1]}))
    (tmp_path / "gone/data-00000-of-00001.arrow").unlink()
    for name, message in {
        "plain": "'plain' is not a saved dataset: state.json: No such file",
        "none": "'none' cannot be read: No such file",
        "a": "state.json is not JSON",
        "b": "state.json is not a JSON object",
        "c": "state.json names no file",
        "picked": r"call flatten_indices() and save it again",
        "gone": "state.json names data-00000-of-00001.arrow",
    }.items():
        with pytest.raises(InputError) as caught:
            read_files(name, tmp_path, format="dataset")
        assert message in str(caught.value)
