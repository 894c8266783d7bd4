"""One damaged row of the ledger: named by verify, asked again by retry, and no traceback for the others' sake."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline import RunOptions, Settings, run, verify
from pipeline.errors import SetupError, StoreError
from pipeline.records import Answer, Request, Response, SavedAnswer, Status, ToolCall, Usage
from pipeline.results import Report
from pipeline.store import Ledger

#: what may have become of a column, and by what the report knows it
DAMAGES = {
    "label = '{\"lab'": "Unterminated string",
    "label = '[[1]]'": "fields or label",
    "label = CAST(x'7bff' AS TEXT)": "label is b'{\\xff'",
    "status = 'weird'": "weird",
    "fields = x'ff00'": "fields is b'\\xff\\x00'",
    "answer = '[]'": "list indices",
    "ordinal = 'abc'": "ordinal is 'abc'",
    "prompt_tokens = 'many'": "prompt_tokens is 'many'",
    "source = CAST(x'ff' AS TEXT)": "can't decode",
    "key = x'ff'": "can't decode",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of ten records, all labelled; its folder is `run`."""
    folder = tmp_path_factory.mktemp("whole")
    lines = [json.dumps({"id": f"r{number}", "text": f"text {number}"}) for number in range(10)]
    (folder / "in.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert labelled(folder).labelled == 10
    return folder


def labelled(folder: Path, **options: Any) -> Any:
    async def provider(_: Request) -> Response:
        return Response(Answer((ToolCall("c", "set_label", '{"label": "good"}'),)), Usage(8, 2), "m", "req")

    settings = Settings(
        input={"path": str(folder / "in.jsonl"), "key": "id"},
        task={"prompt": "{{ text }}", "labels": {"label": ["good", "bad"]}},
        model={"name": "m", "base_url": "http://127.0.0.1:9/v1"},
        output={"dir": str(folder / "run"), "formats": ["csv", "jsonl"]},
    )
    return run(settings, RunOptions(quiet=True, provider=provider, **options))


@pytest.fixture
def damage(whole: Path, tmp_path: Path) -> Callable[[str], Path]:
    def made(change: str) -> Path:
        folder = tmp_path / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(whole, folder)
        text = (folder / "run" / "manifest.json").read_text(encoding="utf-8")
        (folder / "run" / "manifest.json").write_text(text.replace(str(whole), str(folder)), encoding="utf-8")
        with closing(sqlite3.connect(folder / "run" / "ledger.db")) as connection:
            connection.execute(f"UPDATE outcomes SET {change} WHERE seq = 7")
            connection.commit()
        return folder

    return made


def report_of(folder: Path) -> Report:
    return verify(folder / "run")


@pytest.mark.parametrize("change", DAMAGES)
def test_a_damaged_row_is_named_and_asked_again(change: str, damage: Callable[[str], Path]) -> None:
    folder = damage(change)
    ledger = next(check for check in report_of(folder).checks if check.name == "ledger.db")
    assert not ledger.ok
    assert DAMAGES[change] in ledger.detail
    assert "seq 7" in ledger.detail
    assert "retry --only internal_error" in ledger.detail

    again = labelled(folder, retry=True, retry_codes=frozenset({"internal_error"}))
    assert (again.exit_code, again.labelled, again.rejected, again.calls) == (0, 10, 0, 1)
    assert report_of(folder).ok


@pytest.mark.parametrize("change", ["label = '{'", "status = 'weird'", "fields = '[1]'"])
def test_a_run_goes_on_beside_it_and_its_files_say_so(change: str, damage: Callable[[str], Path]) -> None:
    folder = damage(change)
    for name in ("labels.csv", "labels.jsonl", "failed.csv"):
        (folder / "run" / name).unlink()
    with (folder / "in.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"id": "r10", "text": "new"}\n')

    assert labelled(folder).calls == 1
    failed = (folder / "run" / "failed.csv").read_text(encoding="utf-8").splitlines()
    assert len(failed) == 2
    assert failed[1].startswith("r6,")
    assert "internal_error,its row in the ledger (seq 7) is damaged" in failed[1]
    assert len((folder / "run" / "labels.csv").read_text(encoding="utf-8").splitlines()) == 1 + 10


def test_a_damaged_turn_ends_what_is_kept_of_its_conversation(tmp_path: Path) -> None:
    async def main() -> dict[str, list[SavedAnswer]]:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            kept = [
                SavedAnswer(key, number, b"d", Response(Answer(), Usage(1, 1), "m", "r", 0.1), 1, 1.0)
                for key in ("a", "b")
                for number in range(3)
            ]
            await ledger.keep_answers(kept)
            with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
                connection.execute("UPDATE turns SET usage = '[1,' WHERE key = 'a' AND turn = 1")
                connection.commit()
            assert (await ledger.totals()).usage == Usage(5, 5)
            return await ledger.answers_of(["a", "b"])

    assert {key: len(turns) for key, turns in asyncio.run(main()).items()} == {"a": 1, "b": 3}


def test_what_else_cannot_be_read_is_a_store_error(tmp_path: Path) -> None:
    async def main() -> None:
        async with await Ledger.open(tmp_path / "ledger.db") as ledger:
            await ledger.add_requests("2026-11-30", 5)
            with closing(sqlite3.connect(tmp_path / "ledger.db")) as connection:
                connection.execute("UPDATE days SET requests = 'many'")
                connection.commit()
            assert (await ledger.count_by_status())[Status.LABELLED] == 0
            with pytest.raises(StoreError, match="the ledger is damaged"):
                await ledger.requests_on("2026-11-30")

    asyncio.run(main())


def test_what_a_foreign_folder_names_is_fetched_only_when_asked(damage: Callable[[str], Path]) -> None:
    """127.0.0.1:9 refuses: whoever went there would say so."""
    folder = damage("repairs = 0")
    manifest = json.loads((folder / "run" / "manifest.json").read_bytes())
    with closing(sqlite3.connect(folder / "run" / "ledger.db")) as connection:
        place = json.dumps({"table": "t", "url": "postgresql://127.0.0.1:9/db", "url_env": None})
        connection.execute("INSERT INTO meta VALUES ('sql', ?)", (place,))
        connection.execute("UPDATE meta SET value = json_set(value, '$.formats', json('[\"csv\",\"sql\"]'))"
                           " WHERE key = 'layout'")  # fmt: skip
        connection.commit()
    for paths in ({"paths": ["http://127.0.0.1:9/in.jsonl"]}, {"paths": ["sqlite:///x.db"], "query": "DELETE FROM t"},
                  {"paths": [], "url_env": "HOME"}):  # fmt: skip
        foreign = {**manifest, "reading": {**manifest["reading"], **paths}}
        (folder / "run" / "manifest.json").write_text(json.dumps(foreign), encoding="utf-8")
        details = {check.name: check.detail for check in verify(folder / "run").checks}
        assert details["rows in"].startswith("not counted: the input is an address or a database")
        assert details["table t"] == "not compared: verify --remote looks into its database."
    with pytest.raises(SetupError):
        verify(folder / "run", remote=True)
