"""Webhooks over real sockets and real commands: what is told, what is not, and that nothing ever comes out."""

from __future__ import annotations

import asyncio
import http.server
import json
import logging
import os
import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.notify import KINDS, QUIET_S, Notifier, slack_body
from pipeline.settings import Settings

SECRET = "T0/B0/secret-token-xyz"
SECRET_VARIABLES = ("OPENAI_API_KEY", "MY_DB", "LABELPIPE_MODEL__HEADERS__X", "LABELPIPE_NOTIFY__URL")
FACTS = {"run_dir": "runs/a", "labelled": 12, "cost_usd": 0.5}


class Hook:
    """A server that keeps what is posted. `answers` are the statuses in turn; the last one stays."""

    def __init__(self) -> None:
        self.answers: list[int] = [200]
        self.headers: dict[str, str] = {}
        self.got: list[tuple[str, dict[str, str], Any]] = []
        self.hang = threading.Event()
        self.hangs = False
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.got.append((self.path, dict(self.headers), json.loads(body)))
                if hook.hangs:
                    hook.hang.wait(20)
                status = hook.answers.pop(0) if len(hook.answers) > 1 else hook.answers[0]
                self.send_response(status)
                for name, value in hook.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def do_GET(self) -> None:
                hook.got.append((f"GET {self.path}", {}, None))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/services/{SECRET}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.hang.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def hook() -> Iterator[Hook]:
    with closing(Hook()) as hook:
        yield hook


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Callable[[], list[dict[str, Any]]]:
    """The events of the log, and the proof that none of them holds the secret."""
    caplog.set_level(logging.INFO, logger="labelpipe")

    def read() -> list[dict[str, Any]]:
        told = [{"event": record.getMessage(), **record.__dict__["facts"]} for record in caplog.records]
        assert SECRET not in repr(told)
        assert SECRET not in caplog.text
        assert all(record.exc_info is None for record in caplog.records)
        return told

    return read


def told(notifier: Notifier, event: str = "end", text: str = "Done", wait_s: float = 20.0) -> float:
    """Tell once and close; the seconds that both took."""

    async def main() -> None:
        await notifier.send(event, text, FACTS)
        await notifier.close(wait_s)

    started = time.monotonic()
    asyncio.run(main())
    return time.monotonic() - started


def python(code: str, *arguments: str) -> str:
    """A command that runs a line of Python."""
    return shlex.join([sys.executable, "-c", code, *arguments])


# -- the webhook ---------------------------------------------------------------------------------------------------


def test_the_webhook_gets_text_and_facts(hook: Hook, events: Callable[[], list[dict[str, Any]]]) -> None:
    told(Notifier(hook.url, None), text="Done: 12 labelled")
    ((path, headers, body),) = hook.got
    assert path == f"/services/{SECRET}"
    assert headers["Content-Type"] == "application/json"
    assert headers["User-Agent"].startswith("labelpipe/")
    assert body == {
        "text": "Done: 12 labelled",
        "labelpipe": {**FACTS, "event": "end", "text": "Done: 12 labelled"},
    }
    assert events() == [{"event": "notified", "about": "end", "channel": "webhook", "attempt": 1}]


def test_a_text_from_a_server_calls_nobody_in_the_chat() -> None:
    body = json.loads(slack_body({"event": "outage", "text": "503: <!channel> & more"}))
    assert body["text"] == "503: &lt;!channel&gt; &amp; more"
    assert body["labelpipe"]["text"] == "503: <!channel> & more"


def test_text_that_is_no_text_is_sent_all_the_same() -> None:
    body = json.loads(slack_body({"event": "end", "text": "\ud800\0" + "x" * 100_000}))
    assert body["text"] == "?" + "x" * 2_999


def test_a_passing_failure_is_tried_again(hook: Hook, events: Callable[[], list[dict[str, Any]]]) -> None:
    hook.answers = [503, 429, 200]
    told(Notifier(hook.url, None, retry_waits_s=(0.001, 0.001)))
    assert len(hook.got) == 3
    assert [(one["event"], one.get("problem"), one.get("again")) for one in events()] == [
        ("notify failed", "answered 503", True),
        ("notify failed", "answered 429", True),
        ("notified", None, None),
    ]


def test_two_retries_and_no_more(hook: Hook, events: Callable[[], list[dict[str, Any]]]) -> None:
    hook.answers = [500]
    told(Notifier(hook.url, None, retry_waits_s=(0.001, 0.001)))
    assert len(hook.got) == 3
    assert [one["again"] for one in events()] == [True, True, False]


@pytest.mark.parametrize("status", [400, 404, 410])
def test_a_final_refusal_is_not_tried_again(
    hook: Hook, events: Callable[[], list[dict[str, Any]]], status: int
) -> None:
    hook.answers = [status]
    told(Notifier(hook.url, None, retry_waits_s=(0.001, 0.001)))
    assert len(hook.got) == 1
    assert [one["problem"] for one in events()] == [f"answered {status}"]


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(hook: Hook, events: Callable[[], list[dict[str, Any]]], status: int) -> None:
    hook.answers, hook.headers = [status], {"Location": f"http://127.0.0.1:{hook.port}/elsewhere/{SECRET}"}
    told(Notifier(hook.url, None, retry_waits_s=(0.001, 0.001)))
    assert [path for path, _, _ in hook.got] == [f"/services/{SECRET}"]
    assert [one["problem"] for one in events()] == [f"answered {status}: redirects are not followed"]


def test_a_pause_that_the_server_asks_for_is_made(hook: Hook) -> None:
    hook.answers, hook.headers = [429, 200], {"Retry-After": "1"}
    assert told(Notifier(hook.url, None, retry_waits_s=(0.001, 0.001))) >= 1
    assert len(hook.got) == 2


def test_a_pause_that_is_too_long_is_not(hook: Hook) -> None:
    hook.answers, hook.headers = [429], {"Retry-After": "3600"}
    assert told(Notifier(hook.url, None)) < 5
    assert len(hook.got) == 1


def test_nobody_listens(events: Callable[[], list[dict[str, Any]]]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]
    told(Notifier(f"http://127.0.0.1:{port}/{SECRET}", None, retry_waits_s=(0.001, 0.001)))
    assert [one["problem"] for one in events()] == ["the connection was refused"] * 3


def test_something_listens_that_speaks_no_http(events: Callable[[], list[dict[str, Any]]]) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            with closing(server.accept()[0]) as connection:
                connection.recv(65_536)
                connection.sendall(b"220 mail.example.com\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        told(Notifier(f"http://127.0.0.1:{port}/{SECRET}", None, retry_waits_s=()))
        thread.join()
    assert [one["problem"] for one in events()] == ["the answer was no HTTP"]


def test_a_server_that_hangs_is_left_after_the_timeout(hook: Hook, events: Callable[[], list[dict[str, Any]]]) -> None:
    hook.hangs = True
    took_s = told(Notifier(hook.url, None, timeout_s=0.1, retry_waits_s=(0.001, 0.001)))
    assert 0.3 <= took_s < 15
    assert {one["problem"] for one in events()} <= {"no answer in 0.1 s", "no answer in time"}
    assert [one["again"] for one in events()] == [True, True, False]


def test_a_host_that_is_looked_up_for_ever_is_left_too(
    monkeypatch: pytest.MonkeyPatch, events: Callable[[], list[dict[str, Any]]]
) -> None:
    """A socket's timeout begins after the look-up."""
    go = threading.Event()

    def stuck(*_: object, **__: object) -> list[Any]:
        go.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, SECRET)

    monkeypatch.setattr(socket, "getaddrinfo", stuck)
    assert told(Notifier(f"http://host.example/{SECRET}", None, timeout_s=0.05, retry_waits_s=())) < 15
    assert [one["problem"] for one in events()] == ["no answer in 0.05 s"]
    go.set()


def test_telling_does_not_wait_for_a_server_that_hangs(hook: Hook) -> None:
    hook.hangs = True

    async def main() -> float:
        notifier = Notifier(hook.url, None)
        started = time.monotonic()
        await notifier.send("end", "Done", FACTS)
        took_s = time.monotonic() - started
        await notifier.close(0.05)
        return took_s

    assert asyncio.run(main()) < 5


def test_the_end_of_a_run_does_not_wait_for_ever(hook: Hook, events: Callable[[], list[dict[str, Any]]]) -> None:
    """asyncio.run joins the loop's own threads: a post in one of them held the process for the whole timeout."""
    hook.hangs = True
    assert told(Notifier(hook.url, None), wait_s=0.2) < 8
    assert [one["problem"] for one in events()] == ["given up: not done when the run had ended"]


def test_the_end_of_the_process_does_not_wait_either(hook: Hook) -> None:
    hook.hangs = True
    code = (
        "import asyncio, sys; from pipeline.notify import Notifier\n"
        "async def main():\n"
        "    notifier = Notifier(sys.argv[1], None, timeout_s=15)\n"
        "    await notifier.send('end', 'Done', {})\n"
        "    await notifier.close(0.5)\n"
        "asyncio.run(main())"
    )
    ended = subprocess.run([sys.executable, "-c", code, hook.url], timeout=12, capture_output=True, check=True)
    # Without a log the one warning goes to stderr, by Python's own rule.
    assert (ended.stdout, ended.stderr) == (b"", b"notify failed\n")


def test_a_login_in_the_address_is_sent_as_one(hook: Hook) -> None:
    told(Notifier(f"http://me:p%40ss@127.0.0.1:{hook.port}/x", None))
    ((path, headers, _),) = hook.got
    assert path == "/x"
    assert headers["Authorization"] == "Basic bWU6cEBzcw=="


@pytest.mark.parametrize(
    "url",
    [
        f"hooks.example.com/{SECRET}",
        f"file:///{SECRET}",
        f"ftp://example.com/{SECRET}",
        f"https:///{SECRET}",
        f"https://example.com:0/{SECRET}",
        f"https://example.com:no/{SECRET}",
        f"https://[::1/{SECRET}",
        f"https://example.com/{SECRET} x",
        f"https://example.com/{SECRET}\n",
        f"https://example.com/{SECRET}/ü",
        "",
    ],
)
def test_an_address_that_cannot_work_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^notify\.url must be") as caught:
        Notifier(url, None)
    assert "secret-token" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert "secret-token" not in repr(vars(Notifier(f"https://example.com/{SECRET}", None)))


# -- the command ---------------------------------------------------------------------------------------------------

WRITES = "import os,sys,json; open(sys.argv[1],'w').write(json.dumps([os.environ['LABELPIPE_EVENT'], \
os.environ['LABELPIPE_TEXT'], json.load(sys.stdin), sys.argv[2:]]))"


def test_the_command_gets_the_facts(tmp_path: Path, events: Callable[[], list[dict[str, Any]]]) -> None:
    to = tmp_path / "a name with spaces.json"
    told(Notifier(None, python(WRITES, str(to), "$HOME; exit 3")), text="Done: \0 12")
    event, text, facts, arguments = json.loads(to.read_text())
    assert (event, text) == ("end", "Done:  12")
    assert facts == {**FACTS, "event": "end", "text": "Done: \0 12"}
    assert arguments == ["$HOME; exit 3"], "there is no shell"
    assert events() == [{"event": "notified", "about": "end", "channel": "command", "exit_code": 0}]


def test_the_command_gets_no_secret_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key, the database URL and settings that are secrets stay with the run; other variables go on."""
    secrets = dict.fromkeys(SECRET_VARIABLES, "s")
    for name, value in {**secrets, "LABELPIPE_LIMITS__CONCURRENCY": "7", "SLACK_TOKEN": "mine"}.items():
        monkeypatch.setenv(name, value)
    settings = Settings(input={"url_env": "MY_DB"}, task={"prompt": "x", "labels": {"a": ["b"]}}, model={"name": "m"})
    to = tmp_path / "env.json"
    writes = "import os,sys,json; open(sys.argv[1],'w').write(json.dumps(dict(os.environ)))"
    told(Notifier(None, python(writes, str(to)), hidden=settings.secret_variables()))
    seen = json.loads(to.read_text())
    assert secrets.keys().isdisjoint(seen)
    assert (seen["LABELPIPE_LIMITS__CONCURRENCY"], seen["SLACK_TOKEN"]) == ("7", "mine")


def test_the_commands_exit_code_is_told(events: Callable[[], list[dict[str, Any]]]) -> None:
    told(Notifier(None, python(f"import sys; print('{SECRET}'); sys.exit('{SECRET}')")))
    (one,) = events()
    assert (one["event"], one["exit_code"], one["problem"]) == ("notify failed", 1, "ended with exit code 1")


def test_a_command_that_reads_nothing_is_well(events: Callable[[], list[dict[str, Any]]]) -> None:
    async def main() -> None:
        notifier = Notifier(None, python("pass"))
        await notifier.send("end", "Done", {"much": "x" * 1_000_000})
        await notifier.close(20)

    asyncio.run(main())
    assert [one["event"] for one in events()] == ["notified"]


@pytest.mark.parametrize("command", [f"/no/such/program {SECRET}", f"no-such-program-here {SECRET}"])
def test_a_command_that_is_not_there(command: str, events: Callable[[], list[dict[str, Any]]]) -> None:
    told(Notifier(None, command))
    assert [one["problem"] for one in events()] == ["cannot be started: No such file or directory"]


def test_a_command_that_hangs_is_killed_with_what_it_started(
    tmp_path: Path, events: Callable[[], list[dict[str, Any]]]
) -> None:
    note = tmp_path / "pid"
    command = shlex.join(["sh", "-c", "sleep 60 & echo $! > $0.part; mv $0.part $0; wait", str(note)])
    # A machine that is busy may need longer to start it.
    for timeout_s in (0.5, 5, 20):
        assert told(Notifier(None, command, command_timeout_s=timeout_s), wait_s=60) < 50
        assert events()[-1]["problem"] == f"killed: not done after {timeout_s:g} s"
        if note.exists():
            break
    assert _ends(int(note.read_text()))


def test_a_command_that_outlives_the_run_is_left_to_itself(
    tmp_path: Path, events: Callable[[], list[dict[str, Any]]]
) -> None:
    to, go = tmp_path / "done", tmp_path / "go"
    code = (
        "import os, sys, time\n"
        "while not os.path.exists(sys.argv[2]): time.sleep(0.01)\n"
        "open(sys.argv[1], 'w').write('done')"
    )
    assert told(Notifier(None, python(code, str(to), str(go))), wait_s=0.05) < 20
    assert [one["problem"] for one in events()] == ["left to itself: not done when the run had ended"]
    go.touch()
    assert _within(10, to.exists)


def _ends(pid: int) -> bool:
    """Whether the process is gone, or dead and only not collected yet."""

    def gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        stat = Path(f"/proc/{pid}/stat")
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z"

    return _within(5, gone)


def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not holds() and time.monotonic() < until:
        time.sleep(0.01)
    return holds()


@pytest.mark.parametrize(
    ("command", "words"), [("mail 'me", "split into words"), ("", "no program"), ("a\0b", "no program")]
)
def test_a_command_that_cannot_work_is_refused(command: str, words: str) -> None:
    with pytest.raises(ConfigError, match=rf"^notify\.command .*{words}"):
        Notifier(None, command)


# -- which events --------------------------------------------------------------------------------------------------


def _events_told(hook: Hook) -> list[str]:
    return [body["labelpipe"]["event"] for _, _, body in hook.got]


@pytest.mark.parametrize(
    ("on", "expected"),
    [({"end"}, ["end"]), ({"attention"}, ["outage"]), ({"end", "attention"}, ["end", "outage"]), (set(), [])],
)
def test_only_what_is_asked_for_is_told(hook: Hook, on: set[str], expected: list[str]) -> None:
    async def main() -> None:
        notifier = Notifier(hook.url, None, frozenset(on))
        await notifier.send("outage", "No answers", FACTS)
        await notifier.send("end", "Done", FACTS)
        await notifier.close(20)

    asyncio.run(main())
    assert sorted(_events_told(hook)) == expected


def test_the_same_trouble_is_not_told_again_within_a_quarter_of_an_hour(hook: Hook) -> None:
    now = 0.0

    async def main() -> None:
        nonlocal now
        notifier = Notifier(hook.url, None, clock=lambda: now)
        for now, event in [(0, "outage"), (1, "outage"), (2, "budget"), (QUIET_S - 1, "outage"), (QUIET_S, "outage")]:
            await notifier.send(event, "trouble", {"at": now})
        await notifier.send("end", "Done", {"at": now})
        await notifier.send("end", "Done again", {"at": now})
        await notifier.close(20)

    asyncio.run(main())
    got = sorted((body["labelpipe"]["event"], body["labelpipe"]["at"]) for _, _, body in hook.got)
    assert got == [("budget", 2), ("end", QUIET_S), ("end", QUIET_S), ("outage", 0), ("outage", QUIET_S)]


def test_nobody_to_tell_is_no_trouble(events: Callable[[], list[dict[str, Any]]]) -> None:
    told(Notifier(None, None))
    assert events() == []


def test_after_the_close_nothing_is_told(hook: Hook) -> None:
    async def main() -> None:
        notifier = Notifier(hook.url, None)
        await notifier.close()
        await notifier.send("end", "Done", FACTS)
        await notifier.close()

    asyncio.run(main())
    assert hook.got == []


def test_facts_of_any_kind_are_no_trouble(hook: Hook, events: Callable[[], list[dict[str, Any]]]) -> None:
    class Odd:
        def __str__(self) -> str:
            raise RuntimeError(SECRET)

    async def main() -> None:
        notifier = Notifier(hook.url, python("pass"))
        await notifier.send("end", "Done", {"path": Path("a"), "odd": {1, 2}})
        await notifier.send("outage", "No answers", {"odd": Odd()})
        await notifier.close(20)

    asyncio.run(main())
    assert _events_told(hook) == ["end"]
    assert sorted(one["event"] for one in events()) == ["notified", "notified", "notify failed", "notify failed"]


def test_others_can_be_told_from_now_on(hook: Hook) -> None:
    async def main() -> None:
        notifier = Notifier(None, None)
        await notifier.send("end", "Done", FACTS)
        notifier.change(hook.url, None, KINDS)
        with pytest.raises(ConfigError):
            notifier.change("ftp://example.com", None, KINDS)
        with pytest.raises(ConfigError, match=r"notify\.on: unknown 'start'"):
            notifier.change(None, None, frozenset({"start"}))
        await notifier.send("end", "Done", FACTS)
        await notifier.close(20)

    asyncio.run(main())
    assert _events_told(hook) == ["end"]
