"""Every kind of input through a whole run: labels, a kill or a limit in between, the proof, and a changed record."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from end_to_end.forked import Fork
from end_to_end.stage import CODES, Endpoint, Process, Project, environment, read_csv, rows

sys.path.insert(0, str(Path(__file__).parents[1] / "readers"))
from reader_servers import serving

COUNT = 30
ROWS = rows(COUNT)
Make = Callable[..., Project]


def _database(folder: Path, name: str = "db.sqlite") -> None:
    with closing(sqlite3.connect(folder / name)) as db:
        db.execute("CREATE TABLE reviews (id TEXT PRIMARY KEY, text TEXT)")
        db.executemany("INSERT INTO reviews VALUES (?, ?)", [(row["id"], row["text"]) for row in ROWS])
        db.commit()


def _files(folder: Path) -> None:
    (folder / "texts").mkdir()
    for row in ROWS:
        (folder / "texts" / f"{row['id']}.txt").write_text(row["text"], encoding="utf-8")


def _dataset(folder: Path) -> None:
    (folder / "set/train").mkdir(parents=True)
    table = pa.Table.from_pylist(ROWS)
    path = folder / "set/train/data-00000-of-00001.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table, max_chunksize=7)
    (folder / "set/train/state.json").write_text(json.dumps({"_data_files": [{"filename": path.name}]}))
    (folder / "set/dataset_dict.json").write_text('{"splits": ["train"]}')


def _change_database(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "db.sqlite")) as db:
        db.execute("UPDATE reviews SET text = 'changed' WHERE id = 'r0003'")
        db.commit()


KINDS: dict[str, tuple[Callable[[Path], None], dict[str, Any], Callable[[Path], Any]]] = {
    "query": (
        _database,
        {"path": "sqlite:///db.sqlite", "query": "SELECT id, text FROM reviews ORDER BY id", "key": "id"},
        _change_database,
    ),
    "table": (_database, {"path": "sqlite:///db.sqlite", "table": "reviews", "key": "id"}, _change_database),
    "files": (
        _files,
        {"path": "texts/*.txt", "format": "files", "key": None},
        lambda folder: (folder / "texts/r0003.txt").write_text("changed"),
    ),
    "text files": (
        _files,
        {"path": "texts", "format": "text_files", "key": None},
        lambda folder: (folder / "texts/r0003.txt").write_text("changed"),
    ),
    "dataset": (_dataset, {"path": "set/train", "key": "id"}, lambda _: None),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_is_resumed_verified_and_sees_a_changed_record(kind: str, make: Make, endpoint: Endpoint) -> None:
    prepare, wanted, change = KINDS[kind]
    project = make()
    prepare(project.folder)
    prompt = {"files": "{{ stem }}", "text files": "{{ stem }} {{ text }}"}.get(kind, "{{ id }} {{ text }}")
    columns = ["stem"] if "files" in kind else ["id"]
    project.configure(input=wanted, task={"prompt": prompt}, output={"columns": columns})

    checked = project.do("check", "job.toml", "--offline", "--json").json
    assert checked["ok"], checked
    assert project.run("--limit", "10")["labelled"] == 10
    summary = project.run()
    assert (summary["labelled"], summary["calls"]) == (COUNT, COUNT - 10)
    assert endpoint.calls() == COUNT
    assert project.verify()["rows_in"] == COUNT
    assert {row[columns[0]] for row in project.labels()} == {row["id"] for row in ROWS}
    assert project.run()["calls"] == 0

    change(project.folder)
    if kind != "dataset":
        done = project.do("run", "job.toml").expect(2)
        assert "1 record with an outcome and changed content" in done.err
        assert project.run("--relabel")["labelled"] == COUNT
        assert endpoint.calls() == COUNT + 1
        assert project.verify()["pending"] == 0


def test_a_file_on_a_web_server(make: Make) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    project = make()
    with serving(in__jsonl=lines) as site:
        project.configure(input={"path": f"{site.address}/in.jsonl"})
        assert project.run()["labelled"] == COUNT
        assert project.verify()["rows_in"] == COUNT
        assert project.run()["calls"] == 0
        site.files["/in.jsonl"] = lines.replace(b"(3)", b"(three)")
        site.etag = '"2"'
        assert "1 record with an outcome and changed content" in project.do("run", "job.toml").expect(2).err
    done = project.do("run", "job.toml").expect(2)
    assert "in.jsonl' cannot be read" in done.err


def test_an_address_out_of_the_environment_is_written_nowhere(make: Make) -> None:
    """A signed address: what follows the `?` is a secret, and so is a login."""
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    project = make()
    with serving(in__jsonl=lines) as site:
        address = f"{site.address.replace('//', '//me:pa55word@')}/in.jsonl?sig=s3cret"
        project.configure(input={"path": None, "url_env": "REVIEWS_URL", "key": None})
        env = {"REVIEWS_URL": address}
        outputs = [project.do("run", "job.toml", env=env).expect(0), project.do("check", "job.toml", env=env)]
        outputs.append(project.do("verify", "run", "--remote", env=env).expect(0))
        assert "30 = 30 labelled" in outputs[-1].out
        outputs.append(project.do("config", "show", "job.toml", env=env).expect(0))
        outputs.append(project.do("verify", "run", "--remote"))
        assert "REVIEWS_URL is not set" in outputs[-1].err
        outputs.append(project.do("run", "job.toml").expect(2))
        assert "input.url_env: REVIEWS_URL is not set" in outputs[-1].err
        (project.folder / ".env").write_text(f"REVIEWS_URL={address}\n")
        outputs.append(project.do("run", "job.toml").expect(0))
        outputs.append(project.do("verify", "run", "--remote").expect(0))
        site.files.clear()
        outputs.append(project.do("run", "job.toml").expect(2))
    written = [path.read_bytes() for path in project.run_dir.iterdir() if path.is_file()]
    for secret in ("pa55word", "s3cret"):
        assert not any(secret in done.out + done.err for done in outputs)
        assert not any(secret.encode() in data for data in written)


def test_a_password_in_the_config_is_refused_and_not_repeated(make: Make) -> None:
    project = make()
    project.configure(input={"path": "postgresql://me:pa55word@h/db", "query": "SELECT 1"})
    done = project.do("check", "job.toml").expect(2)
    assert "input.path: a password does not belong here" in done.err
    assert "pa55word" not in done.err + done.out


def test_check_warns_of_rows_without_a_name(make: Make) -> None:
    project = make()
    _database(project.folder)
    project.configure(input={"path": "sqlite:///db.sqlite", "query": "SELECT * FROM reviews", "key": None})
    checks = {one["name"]: one for one in project.do("check", "job.toml", "--offline", "--json").json["checks"]}
    assert checks["key"]["ok"] is None
    assert "set input.key, and ORDER BY in the query" in checks["key"]["detail"]


def test_a_config_without_an_input_says_so_as_ever(make: Make) -> None:
    project = make()
    project.configure(input={"path": None})
    for command in ("run", "check"):
        assert "input.path: missing; expected a path, a list of paths" in project.do(command, "job.toml").expect(2).err


PROGRAM = """
import asyncio, json, sys
from pipeline import RunOptions, Settings, arun, run, verify
from pipeline.errors import ChangedError, ConfigError

rows = json.loads(sys.argv[3])

def settings(out, key="id"):
    return Settings(
        input={"key": key},
        task={"prompt": "{{ id }} {{ text }}", "labels": {"label": json.loads(sys.argv[2])}},
        model={"name": "gpt-6-luna", "base_url": sys.argv[1]},
        output={"dir": out, "columns": ["id"]},
    )

async def stream():
    for row in rows:
        yield row

def both(out, records, **more):
    summaries = [run(settings(out), RunOptions(quiet=True), records=each, **more) for each in records]
    report = verify(out)
    return [(each.labelled, each.calls) for each in summaries], report.ok, report.lines()

def frames():
    import pandas, polars
    return [pandas.DataFrame(rows[:10]), polars.DataFrame(rows)]

def mistakes():
    try:
        run(settings("none"))
    except ConfigError as error:
        yield str(error)
    try:
        run(settings("lists"), RunOptions(quiet=True), records=[{**rows[0], "text": "other"}, *rows[1:]])
    except ChangedError as error:
        yield str(error)

print(json.dumps({
    "lists": both("lists", [rows[:10], rows]),
    "generators": both("generators", [(row for row in rows[:10]), (row for row in rows)]),
    "streams": both("streams", [stream(), stream()]),
    "frames": both("frames", frames()),
    "loop": asyncio.run(arun(settings("loop"), RunOptions(quiet=True, records=rows))).labelled,
    "mistakes": list(mistakes()),
}))
"""


def test_records_from_python(tmp_path: Path, endpoint: Endpoint) -> None:
    args = ["-c", PROGRAM, endpoint.base_url, json.dumps(CODES), json.dumps(ROWS)]
    found = Process(args, Fork(args, tmp_path, environment())).wait().expect(0).json
    for name in ("lists", "generators", "frames"):
        counts, ok, lines = found[name]
        assert counts == [[10, 10], [COUNT, COUNT - 10]], f"{name}: the same call resumes"
        assert ok
        assert any("cannot be read again" in line for line in lines)
        assert {row["id"] for row in read_csv(tmp_path / name / "labels.csv")} == {row["id"] for row in ROWS}
    assert found["streams"][0] == [[COUNT, COUNT], [COUNT, 0]]
    assert found["loop"] == COUNT
    assert found["mistakes"][0].startswith("Settings: input.path: missing; expected a path")
    assert "1 record with an outcome and changed content: r0001" in found["mistakes"][1]


def test_init_looks_at_other_inputs_too(tmp_path: Path, make: Make) -> None:
    project = make()
    _dataset(project.folder)
    (project.folder / "photos").mkdir()
    (project.folder / "photos/a.jpg").write_bytes(b"\xff\xd8\xff")
    project.do("init", "photos/*.jpg", "--to", "photos.toml").expect(0)
    text = (project.folder / "photos.toml").read_text()
    assert 'format = "files"' in text
    assert "{{ image(path) }}" in text
    project.do("init", "set/train", "--to", "set.toml").expect(0)
    assert 'format = "dataset"' in (project.folder / "set.toml").read_text()


def test_init_of_a_folder_shows_the_texts_and_refuses_data(make: Make) -> None:
    """The prompt showed the path of a text, and each CSV was a record."""
    project = make()
    _files(project.folder)
    (project.folder / "texts/odd.bin").write_bytes(bytes(range(32)) * 9)
    done = project.do("init", "texts", "--to", "texts.toml").expect(0)
    assert "1 that cannot be read" in done.err
    text = (project.folder / "texts.toml").read_text()
    assert 'format = "text_files"' in text
    assert "Label this text: {{ text }}" in text
    assert "--set input.format=text_files" in project.do("init", "texts/*.txt", "--to", "lines.toml").expect(0).err
    for name in ("data/a.csv", "data/b.csv"):
        (project.folder / name).parent.mkdir(exist_ok=True)
        (project.folder / name).write_text("id,text\n1,fine\n")
    refused = project.do("init", "data", "--to", "data.toml").expect(2)
    assert "labelpipe init 'data/*.csv'" in refused.err
