"""Records, labels and servers put no control character on a terminal, whatever command shows them."""

from __future__ import annotations

import json
import subprocess
import unicodedata
from pathlib import Path

import pytest
from end_to_end.stage import LABELPIPE, environment
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.terminal import printable, printable_json

#: Clears the screen, sets the window's title, is a one-byte CSI, turns the line round, and goes back in it.
HOSTILE = "a\x1b[2Jb\x1b]0;title\x07c\x9b31md\u202ee\rf\x7f"

CONFIG = """
[input]
path = "in.jsonl"
key = "id"
[task]
prompt = "{{ text }}"
labels = { label = ["x\\u202Ey", "x\\u009By"] }
[model]
name = "m"
base_url = "rehearsal"
[rehearsal]
latency_ms = 0
[output]
dir = "run"
"""


def steers(text: str) -> set[str]:
    """The control and format characters in it, but those that every text has."""
    return {char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Cs"}} - {
        "\n",
        "\t",
        "\u200d",
        "\u200c",
    }


@given(st.text() | st.sampled_from([HOSTILE]))
def test_what_is_shown_steers_nothing_and_json_stays_the_same_value(text: str) -> None:
    assert not steers(printable(text)) & set(HOSTILE)
    whole = text.encode("utf-8", "replace").decode()
    assert json.loads(printable_json(json.dumps(whole, ensure_ascii=False))) == whole


def test_a_plain_text_is_shown_as_it_is() -> None:
    text = "Größe 이 제품 👩‍👩‍👧 é\n\tnext"
    assert printable(text) == text


def test_no_command_lets_a_record_or_a_label_steer_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"id": f"{HOSTILE}{number}", "text": HOSTILE} for number in range(3)] + [{"id": HOSTILE, "text": None}]
    Path("in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Path("c.toml").write_text(CONFIG, encoding="utf-8")
    commands = [
        "check c.toml", "preview c.toml", "preview c.toml --json", "config show c.toml", "run c.toml",
        "run c.toml --json", "status run", "status run --json", "verify run", "init in.jsonl --to i.toml",
        "run c.toml --set input.key=\x1b[31m",
    ]  # fmt: skip
    for command in commands:
        done = CliRunner().invoke(app, command.split(" "))
        assert done.output, command
        assert not steers(done.output), command


def test_the_progress_of_a_real_run_is_as_clean(tmp_path: Path) -> None:
    """The real process writes its lines past the command line's own border."""
    (tmp_path / "in.jsonl").write_text(json.dumps({"id": HOSTILE, "text": "t"}) + "\n", encoding="utf-8")
    (tmp_path / "c.toml").write_text(CONFIG, encoding="utf-8")
    command = [*LABELPIPE, "run", "c.toml", "--set", "rehearsal.faults.403=1.0"]
    done = subprocess.run(
        command, check=False, cwd=tmp_path, env=environment({"NO_COLOR": "1"}), capture_output=True, timeout=60
    )
    assert not steers(done.stderr.decode()), done.stderr
    assert (tmp_path / "run").exists()
