"""Writes the demo to a folder: sample texts and their config, which come with the package."""

import shutil
from itertools import islice
from pathlib import Path

from pipeline.errors import SetupError
from pipeline.store import RunDir

CONFIG, TEXTS, RUN = "demo.toml", "reviews.jsonl", "run"


def write_demo(folder: Path) -> Path:
    """Write the sample texts and a config for them, and return the config. Removes the run of an earlier demo.

    Raises SetupError if the folder holds anything else.
    """
    _make_room(folder)
    text = _sample(f"config/{CONFIG}").read_text(encoding="utf-8")
    for old, new in (
        (f"data/{TEXTS}", folder / TEXTS),
        ("runs/demo", folder / RUN),
        (f"config/{CONFIG}", folder / CONFIG),
    ):
        text = text.replace(old, new.as_posix())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(_sample(f"data/{TEXTS}"), folder / TEXTS)
        (folder / CONFIG).write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError(
            f"{folder}: the demo cannot be written: {error.strerror}. Choose another folder with --to"
        ) from error
    return folder / CONFIG


def _make_room(folder: Path) -> None:
    run_dir = RunDir(folder / RUN)
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    is_demo = (folder / CONFIG).is_file() and (folder / TEXTS).is_file()
    manifest = run_dir.read_manifest() if is_demo else None
    if not is_demo or (manifest is not None and not manifest.get("simulated")):
        raise SetupError(f"{folder} already exists and is not a demo: choose another folder with --to")
    run_dir.open_for_writing().close()  # refuses if a run in it is active
    shutil.rmtree(run_dir.path)


def _sample(name: str) -> Path:
    """Return a file of the package. In a clone of the repository, it is at its place there."""
    package = Path(__file__).parent.parent
    shipped = package / "samples" / name
    return shipped if shipped.is_file() else package.parent / name


def first_rows(run_dir: str | Path) -> list[str]:
    """Return the header of labels.csv and five rows."""
    with RunDir(Path(run_dir)).labels().open(encoding="utf-8") as file:
        return [line.rstrip("\r\n") for line in islice(file, 6)]
