"""Writes the first config for a file: `labelpipe init`."""

import ast
import csv
import glob
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path, PurePath

from pipeline import globs
from pipeline.errors import InputError, SetupError
from pipeline.progress import show_count
from pipeline.readers import (
    FILE_FORMATS,
    ReadProgress,
    Source,
    format_by_ending,
    is_plain_folder,
    is_system_file,
    is_text_file,
    read_records,
)
from pipeline.records import JSON
from pipeline.scaffold.proposal import Proposal, propose
from pipeline.scaffold.survey import Survey, media_kind
from pipeline.scaffold.toml_text import to_toml

#: Records to read of an input that is not a local file. All of it may be far away or endless.
LOOKED_AT = 500
#: Finds the key that a reader's question asks for, and the value that it proposes.
_INPUT_KEY = re.compile(r"""set input\.(\w+)(?: = ([\w-]+)\b| (?:=|to) ("[^"]*"|'(?:\\.|[^'\\])+'))?""")
#: More labels would bury the rest of a config.
IN_CONFIG = 12
#: Spreadsheets read texts with these first characters as formulas.
_FORMULA = ("=", "+", "-", "@")


@dataclass(frozen=True, slots=True)
class FirstConfig:
    """A config that was written: its path, what was found and chosen, and whether it has labels already."""

    path: Path
    description: tuple[str, ...]
    has_labels: bool


async def write_config(
    path: str,
    sources: Sequence[Source],
    to: Path | None = None,
    *,
    input_keys: Mapping[str, JSON] | None = None,
    force: bool = False,
    quiet: bool = True,
) -> FirstConfig:
    """Read an input and write a config to edit. Raises InputError, or SetupError if the config exists.

    `sources` are what `path` stands for, read according to the keys of [input] in `input_keys`.
    """
    source, input_keys = sources[0], input_keys or {}
    target = to or Path("config") / f"{_stem(source.name)}.toml"
    if target.exists() and not force:
        raise SetupError(f"{target} already exists: use --force to replace it, or --to for another path")
    reading = ReadProgress()
    limit = input_keys.get("limit")
    survey = await _survey(source, reading, limit if isinstance(limit, int) else None, quiet=quiet)
    proposal = propose(
        survey, input_path=path, format=source.format, reading=reading.detected_options, input_keys=input_keys
    )
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        proposal = replace(proposal, labels_file=list_labels(proposal.labels, target))
        target.write_text(to_toml(proposal), encoding="utf-8")
    except OSError as error:
        raise SetupError(f"{target}: cannot be written: {error.strerror}") from error
    description = (*reading.format_notes(), *_of_many(sources), *_describe(survey, proposal))
    return FirstConfig(target, description, bool(proposal.labels))


def _of_many(sources: Sequence[Source]) -> Iterator[str]:
    """Yield the notes about an input of several files."""
    if len(sources) > 1:
        yield f"only {sources[0].name} was read, the first of {len(sources):,} files"
        if sources[0].format == "text":
            yield "each line of a file is a record; to make each file one: --set input.format=text_files"


def command_with_answer(question: str, command: Sequence[str], sets: Sequence[str]) -> str | None:
    """Return the command with the key that a reader's question asks for; None if it asks for none.

    A value that the question leaves open is VALUE.
    """
    match = _INPUT_KEY.search(question)
    if match is None or match[1] == "path":
        return None
    value = match[2] or (ast.literal_eval(match[3]) if match[3] else "VALUE")
    others = [each for each in sets if each.partition("=")[0].strip() != f"input.{match[1]}"]
    others.append(f"input.{match[1]}={'tab' if value == chr(9) else value}")
    return shlex.join([*command, *(word for each in others for word in ("--set", each))])


async def _survey(source: Source, reading: ReadProgress, limit: int | None, *, quiet: bool) -> Survey:
    """Return what the records have in common: all of a local file, or the first ones of any other input."""
    if source.single_pass:
        raise InputError(f"{source.name}: cannot be examined, because it can be read only once: write it to a file")
    survey = Survey()
    if source.path is None and source.format not in FILE_FORMATS:
        limit = min(limit or LOOKED_AT, LOOKED_AT)
    async with aclosing(read_records([source], limit=limit, progress=reading)) as batches:
        with show_count("looking through it", quiet=quiet) as add:
            async for batch in batches:
                survey.add(batch)
                add(len(batch))
    return survey


def _describe(survey: Survey, proposal: Proposal) -> Iterator[str]:
    bad = f", {survey.unreadable:,} that cannot be read" if survey.unreadable else ""
    count = "1 record" if survey.records == 1 else f"{survey.records:,} records"
    if proposal.format in FILE_FORMATS:
        text_field = ", and its text is in 'text'" if proposal.format == "text_files" else ""
        yield f"{count}{bad}; each file is a record, and its path names it{text_field}"
        if not (text_field or proposal.media):
            yield "these are neither pictures, sounds, documents nor texts: a prompt can show only their names"
        if proposal.apart:
            yield f"{proposal.apart:,} of the files may not be what the prompt shows ({proposal.media}): leave them out"
        return
    yield f"{count}{bad}; the text to label is in {proposal.text!r}"
    yield (
        f"the key of a record is {proposal.key!r}"
        if proposal.key
        else "no column has unique keys, so the place of a record is its key"
    )
    if proposal.gold:
        listed = f"; they are listed in {proposal.labels_file} beside the config" if proposal.labels_file else ""
        yield f"{proposal.gold!r} holds {len(proposal.labels)} labels, which are treated as correct{listed}"
    if proposal.personal:
        yield f"left out of the output as personal: {', '.join(map(repr, proposal.personal))}"


def guess_format(path: str) -> str:
    """Guess the input.format if each file is likely a record: media or texts; "" if it is not.

    Raises InputError for a folder of data files, because these are one input and not one record each.
    """
    if media_kind(path):
        return "files"
    is_folder = is_plain_folder(Path(path))
    pattern = f"{glob.escape(path.rstrip('/'))}/**/*" if is_folder else path
    matched = (name for name in globs.matching(pattern) if os.path.isfile(name) and not is_system_file(name))  # noqa: PTH113
    names = list(islice(matched, LOOKED_AT))
    kinds = Counter(map(_kind_of, names))
    kind = next((kind for kind, count in kinds.items() if 2 * count > len(names)), "")
    if kind == "files" or not is_folder:
        # The lines of a .txt file may be the records, and other texts have a format that reads them.
        return kind if kind == "files" or (names != [path] and not any(map(format_by_ending, names))) else ""
    if kind == "data":
        raise InputError(_name_them(path, names))
    return kind or "files"


def _kind_of(name: str) -> str:
    """Return the kind of a file: media ("files"), records ("data"), a text ("text_files"), or anything else ("")."""
    if media_kind(name):
        return "files"
    if format_by_ending(name) not in ("", "text"):
        return "data"
    return "text_files" if is_text_file(Path(name)) else ""


def _name_them(path: str, names: Sequence[str]) -> str:
    ending = Counter(PurePath(name).suffix for name in names if _kind_of(name) == "data").most_common(1)[0][0]
    within = path.rstrip("/")
    where = (
        f"{within}/*{ending}"
        if all(str(PurePath(name).parent) == within for name in names)
        else f"{within}/**/*{ending}"
    )
    return (
        f"{path}: is a folder of {ending} files, whose rows are the records; name them as one input: "
        f"labelpipe init {shlex.quote(where)}. To make each file a record: --set input.format=text_files"
    )


def _stem(name: str) -> str:
    """Return a short name: `reviews` of `in/reviews.jsonl.gz`, `photos` of `in/photos/**/*.jpg`."""
    parts = [part for part in Path(name).parts if "*" not in part and "?" not in part and part not in ("..", "/")]
    return (parts[-1] if parts else "").split(".")[0] or "labels"


# -- a file of labels --------------------------------------------------------------------------------------------------


def list_labels(labels: Sequence[JSON], config: Path) -> str:
    """Write a file of labels and return its name; "" if they fit into the config, or if no such file can hold them.

    An existing file does not change, because it may contain meanings that somebody has written. Raises OSError.
    """
    texts = [label for label in labels if isinstance(label, str) and _is_plain(label)]
    if len(texts) < len(labels) or len(texts) <= IN_CONFIG:
        return ""
    path = next(path for path in _paths(config) if not path.exists() or _read_labels(path) == texts)
    if not path.exists():
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["label", "description"])
            rows.writerows([text, ""] for text in texts)
    return path.name


def _is_plain(label: str) -> bool:
    """Whether a CSV and a spreadsheet preserve the label."""
    return label == label.strip() and label.isprintable() and not label.startswith(_FORMULA)


def _paths(config: Path) -> Iterator[Path]:
    yield config.with_name("labels.csv")
    yield config.with_name(f"{config.stem}-labels.csv")
    yield from (config.with_name(f"{config.stem}-labels-{number}.csv") for number in count(2))


def _read_labels(path: Path) -> list[str] | None:
    """Return the labels in an existing file; None if it is not a file of labels."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [row["label"] for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, csv.Error):
        return None
