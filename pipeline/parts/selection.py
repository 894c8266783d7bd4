"""Selects records of an input: by an expression, by a list of keys, the first ones, a sample, or a shard."""

import heapq
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline import codec
from pipeline.errors import ConfigError, InputError, did_you_mean, list_names
from pipeline.parts.tables import table_source
from pipeline.readers import ReadProgress, Source, peek, read_records, resolve_sources
from pipeline.records import JSON, LEFT_OUT, Problem, Record
from pipeline.settings import InputSettings, Settings
from pipeline.task import RecordFilter

#: How many records per source, and how many sources, are checked for a field of an expression.
LOOKED_AT, SOURCES_LOOKED_AT = 256, 3
#: How many of the keys that no record has are shown.
SHOWN_KEYS = 5
#: The endings of key files with columns. Any other file has one key per line.
_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")


@dataclass(frozen=True, slots=True)
class InputSelection:
    """What decides whether a record is taken, in this order. `keys_from` is the file of the keys, for messages.

    `shard` (part, of how many) divides what the others take.
    """

    where: RecordFilter | None = None
    keys: frozenset[str] | None = None
    keys_from: str = ""
    limit: int | None = None
    sample: int | None = None
    seed: int = 0
    shard: tuple[int, int] | None = None

    @property
    def takes_all(self) -> bool:
        """Whether nothing but the number of records decides."""
        return self.where is None and self.keys is None and self.sample is None and self.shard is None


@dataclass(slots=True)
class _Pass:
    """The mutable state of one pass over the input.

    How many records all shards and this one took, for how many `where` is neither true nor false, and the keys not seen
    yet.
    """

    count: int = 0
    mine: int = 0
    unclear: int = 0
    missing: set[str] = field(default_factory=set)


def filter_of(options: InputSettings) -> RecordFilter | None:
    """Return the filter of `input.where`. Raises TaskError if it is invalid."""
    return None if options.where is None else RecordFilter(options.where, "input.where")


async def selection_of(options: InputSettings, keys_file: Path | None) -> InputSelection:
    """Return the settings' selection. Raises TaskError, and InputError for a key file that cannot be read."""
    keys = None if keys_file is None else await read_keys(keys_file, options.key)
    shard = None if options.shard is None else shard_of(options.shard)
    return InputSelection(
        filter_of(options), keys, str(keys_file or ""), options.limit, options.sample, options.seed, shard
    )


def shard_of(text: str) -> tuple[int, int]:
    """Return the part and of how many: (3, 16) for "3/16"."""
    number, _, shards = text.partition("/")
    return int(number), int(shards)


def is_of_shard(key: str, shard: tuple[int, int]) -> bool:
    """Whether the key's record belongs to the shard. By a hash, so it is the same on every machine and every time."""
    return codec.digest64(f"shard\0{key}".encode("utf-8", "surrogatepass")) % shard[1] == shard[0] - 1


async def select_records(
    sources: Sequence[Source],
    choice: InputSelection,
    *,
    key: str | None,
    progress: ReadProgress,
    left_out: bool,
) -> AsyncGenerator[list[Record], None]:
    """Yield the records that are taken, in batches; with `left_out` also the others, with a problem.

    `where` leaves out no record that cannot be read, because its contents are unknown.
    """
    last, total = await _draw_sample(sources, choice, key) if choice.sample is not None else (None, None)
    state = _Pass(missing=set(choice.keys or ()))
    async with aclosing(read_records(sources, key=key, progress=progress)) as batches:
        async for records in batches:
            progress.exact_total, progress.limit = total, choice.limit  # the reader counts all records
            reasons = list(_with_reasons(records, choice, state, last))
            progress.excluded_counts.update(why for _, why in reasons if why and why != "shard")
            progress.unclear_count = state.unclear
            if records_out := [_with_problem(record, why) for record, why in reasons if left_out or not why]:
                yield records_out
            if choice.limit is not None and state.count >= choice.limit:
                break
        else:
            _note_missing(state, choice, progress)
    progress.exact_total = state.mine if last is None or choice.shard is not None else total


def _with_reasons(
    records: Iterable[Record], choice: InputSelection, state: _Pass, last: int | None
) -> Iterator[tuple[Record, str]]:
    """Yield each record with the key of [input] that leaves it out; "" if it is taken. Ends at the limit."""
    for record in records:
        if choice.limit is not None and state.count >= choice.limit:
            return
        why = _reason_left_out(record, choice, state)
        if not why:
            state.count += 1
            state.missing.discard(record.key)
            if last is not None and sample_rank(record.key, choice.seed) > last:
                why = "sample"
            elif choice.shard is not None and not is_of_shard(record.key, choice.shard):
                why = "shard"
            state.mine += not why
        yield record, why


def _reason_left_out(record: Record, choice: InputSelection, state: _Pass) -> str:
    if choice.where is not None and record.problem is None:
        verdict = choice.where(record.fields)
        state.unclear += verdict is None
        if not verdict:
            return "where"
    return "keys" if choice.keys is not None and record.key not in choice.keys else ""


def _with_problem(record: Record, why: str) -> Record:
    return replace(record, problem=Problem(LEFT_OUT, f"left out by input.{why}")) if why else record


def sample_rank(key: str, seed: int) -> int:
    """Return a record's rank for drawing a sample: a hash, so it is random but always the same."""
    return codec.digest64(f"{seed}\0{key}".encode("utf-8", "surrogatepass"))


async def _draw_sample(sources: Sequence[Source], choice: InputSelection, key: str | None) -> tuple[int | None, int]:
    """Read the input, and return the rank of the sample's last record and the size of the sample.

    The sample is the records with the lowest ranks. A record that is added later replaces at most one of them. A
    repeated key counts once.
    """
    _refuse_once(sources)
    size, ranks, state = choice.sample or 0, set[int](), _Pass()
    async with aclosing(read_records(sources, key=key)) as batches:
        async for records in batches:
            reasons = _with_reasons(records, choice, state, None)
            ranks.update(sample_rank(record.key, choice.seed) for record, why in reasons if not why)
            if len(ranks) > 2 * size:
                ranks = set(heapq.nsmallest(size, ranks))
            if choice.limit is not None and state.count >= choice.limit:
                break
    ranks = set(heapq.nsmallest(size, ranks))
    return max(ranks, default=None), len(ranks)


def _refuse_once(sources: Sequence[Source]) -> None:
    if once := [source.name for source in sources if source.single_pass]:
        raise InputError(f"a sample reads the input twice, and {once[0]} can be read only once: write it to a file")


def _note_missing(state: _Pass, choice: InputSelection, progress: ReadProgress) -> None:
    if state.missing:
        keys = ", ".join(sorted(state.missing)[:SHOWN_KEYS]) + " ..." * (len(state.missing) > SHOWN_KEYS)
        what = "key is" if len(state.missing) == 1 else "keys are"
        progress.note(f"{len(state.missing):,} {what} in no record: {keys}", choice.keys_from)


async def read_keys(path: Path, key: str | None, option: str = "input.keys") -> frozenset[str]:
    """Read keys from a file's key column, or one per line. Raises InputError, which names the option."""
    is_table = path.name.lower().endswith(_TABLES)
    column = key or "key" if is_table else "text"
    source = _file_of_keys(path, column if is_table else None, option)
    keys: set[str] = set()
    async with aclosing(read_records([source], key=column if is_table else None)) as batches:
        async for records in batches:
            if bad := next((record.problem for record in records if record.problem is not None), None):
                raise InputError(f"{option}: {bad.message}")
            keys.update(filter(None, (_key_in(record, column) for record in records)))
    if not keys:
        raise InputError(f"{option}: {path} holds no keys")
    return frozenset(keys)


def _file_of_keys(path: Path, column: str | None, option: str) -> Source:
    if not path.is_file():
        raise InputError(f"{option}: {path} is not there; expected a file with a key per line, or CSV or JSONL")
    if column is not None:
        return table_source(path, column)
    (source,) = resolve_sources(str(path), format="text", base=Path())
    return source


def _key_in(record: Record, column: str) -> str:
    """Return a row's key. A text is used unchanged, because failed.csv also contains generated names."""
    value = record.fields[column]
    return value.strip() if isinstance(value, str) else record.key


async def validate_selection(sources: Sequence[Source], settings: Settings) -> None:
    """Raise SetupError before a run if the selection does not work with these sources.

    For example, `input.where` may name a field that none of the first records has.
    """
    options = settings.input
    choice = await selection_of(options, None if options.keys is None else settings.find(options.keys))
    if choice.sample is not None:
        _refuse_once(sources)
    await _expect_fields(sources, options, choice.where)


async def _expect_fields(sources: Sequence[Source], options: InputSettings, where: RecordFilter | None) -> None:
    again = [source for source in sources if not source.single_pass][:SOURCES_LOOKED_AT]
    if where is None or not where.required_fields or not again:
        return
    records = [fields async for fields in _first_records(again, options.key)]
    fields = dict.fromkeys(name for one in records for name in one)
    if fields and (missing := sorted(where.required_fields - fields.keys())):
        raise ConfigError(
            f"input.where: {options.where!r} names {missing[0]!r}, which none of the records examined has; the fields "
            f"are {list_names(fields)}{did_you_mean(missing[0], fields)}. For a field that few records have, write "
            f"'{missing[0]} is defined and ...'"
        )
    results = [where(one) for one in records]
    if where.last_error and results.count(None) == len(results):
        raise ConfigError(
            f"input.where: {options.where!r} cannot be evaluated for any record examined: "
            f"{where.last_error}. The values of a CSV are texts: write 'stars|int > 3'"
        )


async def _first_records(sources: Sequence[Source], key: str | None) -> AsyncIterator[Mapping[str, JSON]]:
    for source in sources:
        for record in await peek(source, n=LOOKED_AT, key=key):
            if record.problem is None:
                yield record.fields
