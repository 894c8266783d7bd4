"""A record reaches files below the root, and nothing else."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from pipeline.errors import MediaError
from pipeline.media.local_files import MediaFolder

MOST = 1_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """root/a.png and root/in/b.png, and secret.png beside the root; the current directory is another one."""
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "a.png").write_bytes(b"a")
    (root / "in" / "b.png").write_bytes(b"bb")
    (tmp_path / "secret.png").write_bytes(b"secret")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return root


def read(root: Path, source: str) -> bytes:
    place = MediaFolder(root)
    return place.read(place.find(source, MOST), MOST)


@pytest.mark.parametrize("source", ["a.png", "./a.png", "in/../a.png", "in/b.png"])
def test_files_below_the_root_are_read(folder: Path, source: str) -> None:
    assert read(folder, source) in (b"a", b"bb")


def test_an_absolute_path_below_the_root_is_read(folder: Path) -> None:
    assert read(folder, str(folder / "in" / "b.png")) == b"bb"


def test_a_path_from_the_current_directory_is_read_where_it_leads_below_the_root(folder: Path) -> None:
    assert read(folder, "../root/in/b.png") == b"bb"


def test_symlinks_within_the_root_are_followed(folder: Path) -> None:
    (folder / "link.png").symlink_to("in/b.png")
    (folder / "also").symlink_to(folder / "in", target_is_directory=True)
    assert read(folder, "link.png") == read(folder, "also/b.png") == b"bb"


def test_the_root_itself_may_be_a_symlink(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(folder, target_is_directory=True)
    assert read(tmp_path / "alias", "in/b.png") == b"bb"


@pytest.mark.parametrize("source", ["../secret.png", "in/../../secret.png", "/etc/passwd", "/proc/self/environ", ".."])
def test_no_way_leads_out(folder: Path, source: str) -> None:
    with pytest.raises(MediaError, match="outside"):
        read(folder, source)


def test_no_symlink_leads_out(folder: Path, tmp_path: Path) -> None:
    (folder / "link.png").symlink_to("../secret.png")
    (folder / "up").symlink_to("..", target_is_directory=True)
    (folder / "chain.png").symlink_to("link.png")
    for source in ("link.png", "up/secret.png", "chain.png", str(tmp_path / "secret.png")):
        with pytest.raises(MediaError, match="outside"):
            read(folder, source)


def test_a_link_that_is_put_there_meanwhile_is_not_followed(folder: Path) -> None:
    """Between the look and the reading somebody changes the file, or its folder, into a link that leads out."""
    place = MediaFolder(folder)
    found, inner = place.find("a.png", MOST), place.find("in/b.png", MOST)
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to("../secret.png")
    (folder / "in").rename(folder / "was")
    (folder.parent / "evil").mkdir()
    (folder.parent / "evil" / "b.png").write_bytes(b"evil")
    (folder / "in").symlink_to("../evil", target_is_directory=True)
    for one in (found, inner):
        with pytest.raises(MediaError, match="cannot be read"):
            place.read(one, MOST)


def test_pipes_devices_and_folders_are_refused_and_never_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "pipe.png")
    for source in ("pipe.png", "in"):
        with pytest.raises(MediaError, match="expected a file"):
            read(folder, source)
    with pytest.raises(MediaError, match="expected a file"):
        read(Path("/dev"), "zero")


def test_a_pipe_that_is_put_there_meanwhile_is_refused(folder: Path) -> None:
    place = MediaFolder(folder)
    found = place.find("a.png", MOST)
    (folder / "a.png").unlink()
    os.mkfifo(folder / "a.png")
    with pytest.raises(MediaError, match="expected a file"):
        place.read(found, MOST)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("none.png", "No such file"),
        ("a.png/b", "Not a directory"),
        ("a\0.png", "not a file name"),
        ("x" * 5000, "too long"),
    ],
)
def test_what_cannot_be_read_is_named(folder: Path, source: str, told: str) -> None:
    with pytest.raises(MediaError, match=told):
        read(folder, source)


def test_a_loop_of_links_is_told(folder: Path) -> None:
    (folder / "loop").symlink_to("loop")
    with pytest.raises(MediaError, match=r"cannot be read|symbolic"):
        read(folder, "loop")


def test_a_file_that_is_too_large_is_refused_before_and_while_it_is_read(folder: Path) -> None:
    place = MediaFolder(folder)
    found = place.find("a.png", MOST)
    (folder / "a.png").write_bytes(b"x" * (MOST + 1))
    with pytest.raises(MediaError, match=re.escape("1,001 bytes; task.media.max_bytes allows 1,000")):
        place.find("a.png", MOST)
    with pytest.raises(MediaError, match="larger than the 1,000 bytes"):
        place.read(found, MOST)


@pytest.mark.parametrize("source", [".", "", "in", "in/.."])
def test_a_folder_is_told_as_one(source: str, folder: Path) -> None:
    with pytest.raises(MediaError, match="is a folder: expected a file"):
        read(folder, source or str(folder))


@pytest.mark.parametrize("source", ["a" * 5_000 + ".png", "../" * 1_700, "a\0" + "b" * 5_000])
def test_a_long_name_is_not_told_whole(source: str, folder: Path) -> None:
    with pytest.raises(MediaError) as caught:
        read(folder, source)
    assert len(str(caught.value)) < 500
    assert f"{source[-50:]}' ({len(source):,} characters)" in str(caught.value)
