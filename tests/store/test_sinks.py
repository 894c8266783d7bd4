"""The files of rows: what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from store_samples import labelled, read_csv, unlabelled
from store_sessions import OUTCOMES, labels, run

from pipeline.records import Status
from pipeline.store import Layout


def test_each_outcome_is_in_one_file(tmp_path: Path) -> None:
    refused = unlabelled(2, "refused", Status.REJECTED, attempts=2)
    run(tmp_path, [labelled(0), unlabelled(1)], [refused, labelled(3, 'a "b",\nc')])
    assert (tmp_path / "labels.csv").read_bytes() == (b'id,text,label\nr0,text 0,positive\nr3,text 3,"a ""b"",\nc"\n')
    assert (tmp_path / "failed.csv").read_bytes() == (
        b"key,source,line,status,code,message,attempts,id,text\n"
        b"r1,data/in.jsonl,2,failed,timeout,no label: timeout,6,r1,text 1\n"
        b"r2,data/in.jsonl,3,rejected,refused,no label: refused,2,r2,text 2\n"
    )


def test_a_run_without_rows_has_headers(tmp_path: Path) -> None:
    run(tmp_path, layout=Layout(labels=("label",), columns=("id",)))
    assert (tmp_path / "labels.csv").read_text() == "id,label\n"
    assert (tmp_path / "failed.csv").read_text() == "key,source,line,status,code,message,attempts,id\n"


def test_rows_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    run(tmp_path, [labelled(0)], [labelled(1)], finish=False)
    assert labels(tmp_path) == ["r0", "r1"]


def test_json_lines(tmp_path: Path) -> None:
    layout = Layout(labels=("label",), formats=("jsonl",))
    run(tmp_path, [labelled(0, fields={"id": 1, "tags": ["a"]}), unlabelled(1)], [labelled(2)], layout=layout)
    lines = (tmp_path / "labels.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"id": 1, "tags": ["a"], "text": None, "label": "positive"},
        {"id": "r2", "tags": None, "text": "text 2", "label": "positive"},
    ]
    assert not (tmp_path / "labels.csv").exists()
    assert len(read_csv(tmp_path / "failed.csv")) == 1


def test_formulas_are_escaped_when_asked(tmp_path: Path) -> None:
    layout = Layout(labels=("label",), escape_formulas=True)
    run(tmp_path, [labelled(0, "=1+1", fields={"@id": "-x"})], layout=layout)
    assert read_csv(tmp_path / "labels.csv") == [{"'@id": "'-x", "label": "'=1+1"}]


def test_a_new_column_changes_a_short_file_at_once(tmp_path: Path) -> None:
    run(tmp_path, [labelled(0)], [labelled(1, fields={"id": "r1", "late": 5})], finish=False)
    assert read_csv(tmp_path / "labels.csv") == [
        {"id": "r0", "text": "text 0", "late": "", "label": "positive"},
        {"id": "r1", "text": "", "late": "5", "label": "positive"},
    ]


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("ends", ["finish", "next session"])
def test_a_new_column_changes_a_long_file_at_the_end(tmp_path: Path, ends: str) -> None:
    late = labelled(50, {"label": "x", "score": 1}, fields={"id": "r50", "late": 5})
    run(tmp_path, OUTCOMES, [late], [labelled(51)], finish=ends == "finish")
    if ends == "next session":
        assert "late" not in read_csv(tmp_path / "labels.csv")[-1]
        assert labels(tmp_path)[-2:] == ["r50", "r51"]
        run(tmp_path)
    assert read_csv(tmp_path / "labels.csv")[-2:] == [
        {"id": "r50", "text": "", "late": "5", "label": "x", "score": "1"},
        {"id": "r51", "text": "text 51", "late": "", "label": "positive", "score": ""},
    ]


def test_other_columns_need_no_call(tmp_path: Path) -> None:
    run(tmp_path, [labelled(0), unlabelled(1)])
    run(tmp_path, layout=Layout(labels=("label",), columns=("text",), fixed=True))
    assert read_csv(tmp_path / "labels.csv") == [{"text": "text 0", "label": "positive"}]
    run(tmp_path)
    assert read_csv(tmp_path / "labels.csv") == [{"text": "text 0", "id": "r0", "label": "positive"}]


def test_a_format_that_comes_later_has_all_rows(tmp_path: Path) -> None:
    run(tmp_path, [labelled(0)])
    run(tmp_path, [labelled(1)], layout=Layout(labels=("label",), formats=("csv", "jsonl")))
    assert len((tmp_path / "labels.jsonl").read_text().splitlines()) == 2


def parquet_of(path: Path) -> Any:
    return pyarrow.parquet.read_table(path / "labels.parquet")


def test_parquet_has_types(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"n": 1, "x": 1, "ok": True, "text": "a\ud800", "tags": ["a"], "mixed": 1, "none": None, "big": 2**62},
        {"n": 2, "x": 0.5, "ok": None, "text": "b", "tags": None, "mixed": "z", "none": None, "big": 0.5},
    ]
    batch = [labelled(number, fields=fields) for number, fields in enumerate(rows)]
    run(tmp_path, batch, [unlabelled(9)], layout=Layout(labels=("label",), formats=("parquet",)))
    table = parquet_of(tmp_path)
    assert [str(kind) for kind in table.schema.types] == ["int64", "double", "bool"] + ["string"] * 6
    assert table.to_pylist() == [
        {
            "n": 1,
            "x": 1.0,
            "ok": True,
            "text": "a\ufffd",
            "tags": '["a"]',
            "mixed": "1",
            "none": None,
            "big": str(2**62),
            "label": "positive",
        },
        {
            "n": 2,
            "x": 0.5,
            "ok": None,
            "text": "b",
            "tags": None,
            "mixed": "z",
            "none": None,
            "big": "0.5",
            "label": "positive",
        },
    ]


def test_parquet_is_made_anew_by_each_session(tmp_path: Path) -> None:
    layout = Layout(labels=("label",), formats=("csv", "parquet"), order="input")
    run(tmp_path, [labelled(2), labelled(0)], layout=layout)
    assert parquet_of(tmp_path).column("id").to_pylist() == ["r0", "r2"]
    run(tmp_path, [labelled(1)], layout=layout)
    assert parquet_of(tmp_path).column("id").to_pylist() == ["r0", "r1", "r2"]
    assert not list(tmp_path.glob("*.part"))
