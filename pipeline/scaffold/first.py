"""A first config for a file: what `labelpipe init` writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import aclosing
from dataclasses import dataclass
from mimetypes import guess_type
from pathlib import Path

from pipeline.errors import InputError, SetupError
from pipeline.progress import counting
from pipeline.readers import Progress, Source, is_plain_folder, read_records, resolve_sources
from pipeline.scaffold.proposal import Proposal, propose
from pipeline.scaffold.survey import Survey
from pipeline.scaffold.text import to_toml
from pipeline.threads import in_daemon

#: records of what is no local file: all of it may be far away, or without an end
LOOKED_AT = 500


@dataclass(frozen=True, slots=True)
class FirstConfig:
    """A config that was written: its path, what was seen and chosen, and whether its labels are still to be given."""

    path: Path
    told: tuple[str, ...]
    has_labels: bool


async def write_config(path: str, to: Path | None = None, *, force: bool = False, quiet: bool = True) -> FirstConfig:
    """Look through an input and write a config to edit. Raises InputError, or SetupError if one is there."""
    kind = "files" if _holds_media(path) else "auto"
    sources = await in_daemon(lambda: resolve_sources(path, format=kind, base=Path()))
    source = sources[0]
    target = to or Path("config") / f"{_stem(source.name)}.toml"
    if target.exists() and not force:
        raise SetupError(f"{target} is there already: give --force to replace it, or --to another path")
    reading = Progress()
    try:
        survey = await _surveyed(source, reading, quiet=quiet)
    except InputError as error:
        if "set input." not in str(error):
            raise
        # Nobody has a config yet to set the key in.
        told = "init has no config to read this key from: write one by hand, with the key in it"
        raise InputError(f"{error}. ({told})") from error
    proposal = propose(survey, input_path=path, format=source.format, reading=reading.chosen)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(to_toml(proposal), encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{target}: cannot be written: {error.strerror}") from error
    only = (f"only {source.name} was looked at, the first of {len(sources):,} files",) if len(sources) > 1 else ()
    return FirstConfig(target, (*reading.told(), *only, *_told(survey, proposal)), bool(proposal.labels))


async def _surveyed(source: Source, reading: Progress, *, quiet: bool) -> Survey:
    """What its records have in common: all of a local file's, the first ones of anything else."""
    if source.once:
        raise InputError(f"{source.name}: cannot be looked at; it can be read only once: write it to a file")
    survey = Survey()
    limit = None if source.path is not None else LOOKED_AT
    async with aclosing(read_records([source], limit=limit, progress=reading)) as batches:
        with counting("looking through it", quiet=quiet) as add:
            async for batch in batches:
                survey.add(batch)
                add(len(batch))
    return survey


def _told(survey: Survey, proposal: Proposal) -> Iterator[str]:
    bad = f", {survey.unreadable:,} that cannot be read" if survey.unreadable else ""
    count = "1 record" if survey.records == 1 else f"{survey.records:,} records"
    yield f"{count}{bad}; the text to label is in {proposal.text!r}"
    yield f"a record is named by {proposal.key!r}" if proposal.key else "no column names each record: their place does"
    if proposal.gold:
        yield f"{proposal.gold!r} holds {len(proposal.labels)} labels, taken for the right ones"
    if proposal.personal:
        yield f"left out of the output as personal: {', '.join(map(repr, proposal.personal))}"


def _holds_media(path: str) -> bool:
    """Whether each file is likely a record: pictures, sounds and documents, or a folder of whatever there is."""
    kind = (guess_type(path)[0] or "").partition("/")[0]
    return kind in ("image", "audio", "video") or path.lower().endswith(".pdf") or is_plain_folder(Path(path))


def _stem(name: str) -> str:
    """`reviews` of `in/reviews.jsonl.gz`, `photos` of `in/photos/**/*.jpg`."""
    parts = [part for part in Path(name).parts if "*" not in part and "?" not in part and part not in ("..", "/")]
    return (parts[-1] if parts else "").split(".")[0] or "labels"
