"""A run over pictures, through a real process and a real socket: what arrives, and what hostile records do."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

sys.path.insert(0, str(Path(__file__).parents[1] / "media"))

from end_to_end.stage import Project, read_csv
from media_files import animated, huge_png, jpeg, pdf, picture, wav

CONFIG = """
[input]
path = "photos.jsonl"
key = "id"
[task]
prompt = "What is it? {{{{ id }}}} {{{{ {shown} }}}}"
[task.labels]
label = ["cat", "dog"]
{media}
[model]
name = "gpt-6-luna"
base_url = "{url}"
[limits]
concurrency = 8
max_attempts = 2
[output]
dir = "out"
"""


class Camera:
    """An endpoint that books the bodies it gets, and says cat."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._ready.wait(10)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._open())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._runner.cleanup())
        self._loop.close()

    async def _open(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def _answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.bodies.append(body)
        call = {"id": "c1", "type": "function", "function": {"name": "set_label", "arguments": '{"label":"cat"}'}}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        usage = {"prompt_tokens": 500, "completion_tokens": 10, "total_tokens": 510}
        return web.json_response(
            {"id": "x", "model": "m", "choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
        )

    def shown(self) -> dict[str, list[Any]]:
        """The parts beside the text, by record."""
        found = {}
        for body in self.bodies:
            first, *more = body["messages"][-1]["content"]
            found[first["text"].split()[3]] = more
        return found

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


@pytest.fixture
def camera() -> Iterator[Camera]:
    opened = Camera()
    yield opened
    opened.close()


def project(
    folder: Path, camera: Camera, records: dict[str, Any], shown: str = "image(photo)", media: str = ""
) -> Project:
    folder.mkdir(exist_ok=True)
    lines = [json.dumps({"id": key, "photo": photo}) for key, photo in records.items()]
    (folder / "photos.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (folder / "run.toml").write_text(CONFIG.format(url=camera.url, shown=shown, media=media), encoding="utf-8")
    return Project(folder)


@pytest.mark.parametrize(("photo", "said"), [("cut.jpg", "cut.jpg"), ("../secret.png", "outside")])
def test_media_of_which_none_can_be_shown_stop_the_run(tmp_path: Path, camera: Camera, photo: str, said: str) -> None:
    """A wrong root, or a disk that was copied badly: each record was rejected, and it said Done."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "cut.jpg").write_bytes(jpeg((500, 500))[:9_000])
    (tmp_path / "secret.png").write_bytes(picture("PNG"))
    user = project(folder, camera, {f"p{number}": photo for number in range(30)})
    done = user.do("run", "run.toml").expect(2)
    assert camera.bodies == []
    assert "none of its 30 records can be asked (media_error 30)" in done.err
    assert said in done.err
    assert read_csv(folder / "out" / "failed.csv") == []


def test_pictures_arrive_byte_for_byte_and_hostile_ones_are_named(tmp_path: Path, camera: Camera) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    large = jpeg((900, 900), quality=98)
    files = {
        "good.jpg": jpeg((300, 200)),
        "large.jpg": large,
        "cut.jpg": jpeg((500, 500))[:9_000],
        "huge.png": huge_png(),
        "moving.gif": animated(),
        "text.jpg": b"no picture",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    (tmp_path / "secret.png").write_bytes(picture("PNG"))
    (folder / "out_of_it.png").symlink_to("../secret.png")
    records = {
        "good": "good.jpg",
        "large": "large.jpg",
        "both": ["good.jpg", "large.jpg"],
        "inline": f"data:image/png;base64,{base64.b64encode(picture('PNG')).decode()}",
        "passed": "https://example.org/cat.jpg",
        "cut": "cut.jpg",
        "huge": "huge.png",
        "moving": "moving.gif",
        "text": "text.jpg",
        "missing": "none.jpg",
        "link": "out_of_it.png",
        "above": "../secret.png",
        "rooted": "/etc/passwd",
        "scheme": "file:///etc/passwd",
        "private": "https://169.254.169.254/latest/meta-data",
        "plain": "http://example.org/a.png",
        "nothing": None,
    }
    user = project(folder, camera, records)
    done = user.do("run", "run.toml", "--json").expect(1)
    assert done.json["labelled"] == 5

    shown = camera.shown()
    assert set(shown) == {"good", "large", "both", "inline", "passed"}
    assert _bytes(shown["good"][0]) == ("image/jpeg", files["good.jpg"])
    assert _bytes(shown["large"][0]) == ("image/jpeg", large)
    assert [_bytes(part)[1] for part in shown["both"]] == [files["good.jpg"], large]
    assert _bytes(shown["inline"][0]) == ("image/png", picture("PNG"))
    assert shown["passed"][0]["image_url"] == {"url": "https://example.org/cat.jpg", "detail": "high"}

    failed = {row["key"]: row for row in read_csv(folder / "out" / "failed.csv")}
    assert set(failed) == set(records) - set(shown)
    assert {row["code"] for row in failed.values()} == {"media_error"}
    told = {
        "cut": "cut off", "huge": "200 megapixels", "moving": "animated", "text": "is text", "missing": "No such file",
        "link": "outside", "above": "outside", "rooted": "outside", "scheme": "expected a path",
        "private": "private network", "plain": "expected https", "nothing": "got nothing",
    }  # fmt: skip
    for key, words in told.items():
        assert words in failed[key]["message"], f"{key}: {failed[key]['error']}"
    user.do("verify", "out").expect(0)
    # Nothing of a picture is kept.
    assert sum(file.stat().st_size for file in (folder / "out").iterdir()) < len(large)


def _bytes(part: dict[str, Any]) -> tuple[str, bytes]:
    head, _, body = part["image_url"]["url"].partition(";base64,")
    return head.removeprefix("data:"), base64.b64decode(body)


def test_a_large_photo_is_scaled_and_two_records_with_one_photo_are_asked_once(tmp_path: Path, camera: Camera) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg((3_000, 2_000)))
    user = project(tmp_path, camera, {"a": "a.jpg", "b": "a.jpg"}, media='[task.media]\ndetail = "low"')
    config = (tmp_path / "run.toml").read_text().replace("{{ id }}", "it")
    (tmp_path / "run.toml").write_text(config)
    assert user.do("run", "run.toml", "--json").expect(0).json["labelled"] == 2
    assert len(camera.bodies) == 1
    part = camera.bodies[0]["messages"][-1]["content"][1]
    assert part["image_url"]["detail"] == "low"
    assert len(_bytes(part)[1]) < 200_000


def test_fields_of_the_table_are_shown_after_the_text(tmp_path: Path, camera: Camera) -> None:
    (tmp_path / "a.wav").write_bytes(wav())
    (tmp_path / "a.pdf").write_bytes(pdf(2))
    for name, kind in {"a.wav": "audio", "a.pdf": "documents"}.items():
        camera.bodies.clear()
        media = f'[task.media]\n{kind} = ["photo"]\nroot = ".."'
        user = project(tmp_path / kind, camera, {"one": str(tmp_path / name)}, "'and'", media)
        user.do("run", "run.toml", "--json").expect(0)
        kinds = [part["type"] for part in camera.bodies[0]["messages"][-1]["content"]]
        assert kinds == (["text", "input_audio"] if kind == "audio" else ["text", "image_url", "image_url"])


def test_check_says_what_media_would_do(tmp_path: Path, camera: Camera) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    user = project(tmp_path, camera, {"a": "a.jpg", "b": "none.jpg"})
    checks = {one["name"]: one for one in user.do("check", "run.toml", "--offline", "--json").json["checks"]}
    assert checks["media"]["ok"] is None
    assert "1 of the first 2" in checks["media"]["detail"]
    assert "none.jpg" in checks["media"]["detail"]
    assert camera.bodies == []


def test_a_folder_of_photos_is_an_input(tmp_path: Path, camera: Camera) -> None:
    (tmp_path / "photos" / "cats").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "photos" / "cats" / f"{number}.jpg").write_bytes(jpeg((40 + number, 40)))
    user = project(tmp_path, camera, {}, "image(path)")
    config = (tmp_path / "run.toml").read_text()
    config = config.replace('path = "photos.jsonl"\nkey = "id"', 'path = "photos/**/*.jpg"\nformat = "files"')
    (tmp_path / "run.toml").write_text(config.replace("{{ id }}", "{{ path }}"))
    assert user.do("run", "run.toml", "--json").expect(0).json["labelled"] == 3
    assert len(camera.bodies) == 3
