"""A first config for a file: what `labelpipe init` writes."""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from pipeline import globs
from pipeline.errors import InputError, SetupError
from pipeline.progress import counting
from pipeline.readers import Progress, Source, is_litter, is_plain_folder, read_records
from pipeline.records import JSON
from pipeline.scaffold.listed import list_labels
from pipeline.scaffold.proposal import Proposal, propose
from pipeline.scaffold.survey import Survey, media_kind
from pipeline.scaffold.text import to_toml

#: records of what is no local file: all of it may be far away, or without an end
LOOKED_AT = 500
#: how a reader asks for a key, and the value that it proposes
_ASKED = re.compile(r"""set input\.(\w+)(?: = ([\w-]+)\b| (?:=|to) ("[^"]*"|'(?:\\.|[^'\\])+'))?""")


@dataclass(frozen=True, slots=True)
class FirstConfig:
    """A config that was written: its path, what was seen and chosen, and whether its labels are still to be given."""

    path: Path
    told: tuple[str, ...]
    has_labels: bool


async def write_config(
    path: str,
    sources: Sequence[Source],
    to: Path | None = None,
    *,
    said: Mapping[str, JSON] | None = None,
    force: bool = False,
    quiet: bool = True,
) -> FirstConfig:
    """Look through an input and write a config to edit. Raises InputError, or SetupError if one is there.

    `sources` are what `path` stands for, read as the keys of [input] in `said` tell.
    """
    source, said = sources[0], said or {}
    target = to or Path("config") / f"{_stem(source.name)}.toml"
    if target.exists() and not force:
        raise SetupError(f"{target} is there already: give --force to replace it, or --to another path")
    reading = Progress()
    limit = said.get("limit")
    survey = await _surveyed(source, reading, limit if isinstance(limit, int) else None, quiet=quiet)
    proposal = propose(survey, input_path=path, format=source.format, reading=reading.chosen, said=said)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        proposal = replace(proposal, labels_file=list_labels(proposal.labels, target))
        target.write_text(to_toml(proposal), encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{target}: cannot be written: {error.strerror}") from error
    only = (f"only {source.name} was looked at, the first of {len(sources):,} files",) if len(sources) > 1 else ()
    return FirstConfig(target, (*reading.told(), *only, *_told(survey, proposal)), bool(proposal.labels))


def answered(question: str, command: Sequence[str], sets: Sequence[str]) -> str | None:
    """The command again with the key that a reader's question asks for; None where it asks for none.

    A value that the question leaves open is VALUE.
    """
    asked = _ASKED.search(question)
    if asked is None or asked[1] == "path":
        return None
    value = asked[2] or (ast.literal_eval(asked[3]) if asked[3] else "VALUE")
    kept = [each for each in sets if each.partition("=")[0].strip() != f"input.{asked[1]}"]
    kept.append(f"input.{asked[1]}={'tab' if value == chr(9) else value}")
    return shlex.join([*command, *(word for each in kept for word in ("--set", each))])


async def _surveyed(source: Source, reading: Progress, limit: int | None, *, quiet: bool) -> Survey:
    """What its records have in common: all of a local file's, the first ones of anything else."""
    if source.once:
        raise InputError(f"{source.name}: cannot be looked at; it can be read only once: write it to a file")
    survey = Survey()
    if source.path is None and source.format != "files":
        limit = min(limit or LOOKED_AT, LOOKED_AT)
    async with aclosing(read_records([source], limit=limit, progress=reading)) as batches:
        with counting("looking through it", quiet=quiet) as add:
            async for batch in batches:
                survey.add(batch)
                add(len(batch))
    return survey


def _told(survey: Survey, proposal: Proposal) -> Iterator[str]:
    bad = f", {survey.unreadable:,} that cannot be read" if survey.unreadable else ""
    count = "1 record" if survey.records == 1 else f"{survey.records:,} records"
    if proposal.format == "files":
        yield f"{count}{bad}; each file is a record, and its path names it"
        if proposal.apart:
            yield f"{proposal.apart:,} of the files may not be what the prompt shows ({proposal.media}): leave them out"
        return
    yield f"{count}{bad}; the text to label is in {proposal.text!r}"
    yield f"a record is named by {proposal.key!r}" if proposal.key else "no column names each record: their place does"
    if proposal.gold:
        listed = f"; they are listed in {proposal.labels_file} beside the config" if proposal.labels_file else ""
        yield f"{proposal.gold!r} holds {len(proposal.labels)} labels, taken for the right ones{listed}"
    if proposal.personal:
        yield f"left out of the output as personal: {', '.join(map(repr, proposal.personal))}"


def holds_media(path: str) -> bool:
    """Whether each file is likely a record: pictures, sounds and documents, or a folder of whatever there is."""
    if media_kind(path) or is_plain_folder(Path(path)):
        return True
    matched = (name for name in globs.matching(path) if os.path.isfile(name) and not is_litter(name))  # noqa: PTH113
    kinds = [media_kind(name) for name in islice(matched, LOOKED_AT)]
    return 2 * sum(map(bool, kinds)) > len(kinds)


def _stem(name: str) -> str:
    """`reviews` of `in/reviews.jsonl.gz`, `photos` of `in/photos/**/*.jpg`."""
    parts = [part for part in Path(name).parts if "*" not in part and "?" not in part and part not in ("..", "/")]
    return (parts[-1] if parts else "").split(".")[0] or "labels"
