"""A first config for a file: what `labelpipe init` writes."""

from __future__ import annotations

from mimetypes import guess_type
from pathlib import Path

from pipeline.errors import SetupError
from pipeline.readers import Progress, is_plain_folder, peek, resolve_sources
from pipeline.scaffold import propose, to_toml

LOOKED_AT = 500


async def write_config(path: str, to: Path | None = None, *, force: bool = False) -> Path:
    """Look at an input and write a config to edit; gives its path. Raises InputError, or SetupError if one is there."""
    source = resolve_sources(path, format="files" if _holds_media(path) else "auto", base=Path())[0]
    target = to or Path("config") / f"{_stem(source.name)}.toml"
    if target.exists() and not force:
        raise SetupError(f"{target} is there already: give --force to replace it, or --to another path")
    reading = Progress()
    records = await peek(source, n=LOOKED_AT, progress=reading)
    text = to_toml(propose(records, input_path=path, format=source.format, reading=reading.chosen))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{target}: cannot be written: {error.strerror}") from error
    return target


def _holds_media(path: str) -> bool:
    """Whether each file is likely a record: pictures, sounds and documents, or a folder of whatever there is."""
    kind = (guess_type(path)[0] or "").partition("/")[0]
    return kind in ("image", "audio", "video") or path.lower().endswith(".pdf") or is_plain_folder(Path(path))


def _stem(name: str) -> str:
    """`reviews` of `in/reviews.jsonl.gz`, `photos` of `in/photos/**/*.jpg`."""
    parts = [part for part in Path(name).parts if "*" not in part and "?" not in part and part not in ("..", "/")]
    return (parts[-1] if parts else "").split(".")[0] or "labels"
