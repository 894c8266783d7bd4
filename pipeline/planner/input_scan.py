"""Reads all records of an input before a run and checks them, in bounded memory and without calls."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from pipeline.errors import MediaError, RenderError, SetupError
from pipeline.facts import Check
from pipeline.media import has_pillow
from pipeline.parts import SAME_PROMPT, gold_fields, label_fields, media_of, votes_usd
from pipeline.readers import FILE_FORMATS
from pipeline.records import JSON, Record, Usage
from pipeline.runner import expected_usage
from pipeline.settings import Settings
from pipeline.task import Task
from pipeline.units import dollars

#: Records to keep for checks that need only a few: their media, and what a call takes.
SAMPLE_RECORDS = 200
#: Keys and texts to compare. Beyond these, no repetition is reported.
MOST_HASHES = 3_000_000
#: Records whose media are loaded. A photo takes a tenth of a second.
MEDIA_RECORDS = 20
#: Distinct values to keep of a gold column.
VALUES_MAX = 200
#: Up to this many unreadable lines, or one in a hundred, are a warning only.
FEW, FEW_IN = 3, 100


class InputScan:
    """Counts records, which are added in batches. Set `whole` if these were all."""

    def __init__(self, settings: Settings, task: Task) -> None:
        self._settings, self._task = settings, task
        self._gold = gold_fields(settings)
        # Mutable state: the number of records, of those that could be asked, and the bytes of their prompts; the
        # problems of the others, with one example of each; and the keys and texts seen, with the number of repetitions.
        self.records = self.askable = self.bytes = 0
        self.problems: Counter[str] = Counter()
        self._one_of: dict[str, str] = {}
        self._keys: set[int] = set()
        self._texts: set[int] = set()
        self.repeated_keys = self.repeated_texts = 0
        self.right: dict[str, Counter[str]] = {column: Counter() for column in self._gold.values()}
        self.first: list[Record] = []
        self.whole = False

    def add(self, records: Iterable[Record]) -> None:
        """Add more records."""
        for record in records:
            self.records += 1
            if len(self.first) < SAMPLE_RECORDS:
                self.first.append(record)
            if record.problem is not None:
                self._reject(record.problem.code, record.problem.message)
            else:
                self._add(record)

    def _add(self, record: Record) -> None:
        self.repeated_keys += _is_repeated(record.key, self._keys)
        for column, values in self.right.items():
            if len(values) < VALUES_MAX:
                values[_as_text(record.fields.get(column))] += 1
        try:
            text = self._task.prompt_text(record)
        except RenderError as error:
            self._reject(error.code, str(error))
        else:
            self.askable += 1
            self.bytes += len(text.encode())
            self.repeated_texts += _is_repeated(text, self._texts)

    def _reject(self, code: str, message: str) -> None:
        self.problems[code] += 1
        self._one_of.setdefault(code, message)

    @property
    def _whose(self) -> str:
        return f"{self.records:,} records" if self.whole else f"the first {self.records:,} records"

    def checks(self, formats: frozenset[str]) -> list[Check]:
        """Return the checks of the records. `formats` are the formats of the inputs."""
        records = [self._readable(), *self._prompt(), *self._tokens()]
        return [*records, self._key(formats), *self._labels()]

    def _readable(self) -> Check:
        bad = self.problems["unreadable"]
        if not bad:
            return Check("records", True, f"{self._whose}, all readable")
        few = bad <= max(FEW, self.records // FEW_IN) and bad < self.records
        return Check("records", None if few else False, f"{bad:,} of {self._whose} cannot be read; for example: "
                     f"{self._one_of['unreadable']}")  # fmt: skip

    def _prompt(self) -> list[Check]:
        if self._task.is_constant:
            return [Check("prompt", False, SAME_PROMPT)]
        codes = [code for code in self.problems if code not in ("unreadable", "no_key")]
        if not codes:
            return [Check("prompt", True, f"rendered for {self.askable:,} records")] if self.askable else []
        text = "; ".join(f"{code} {self.problems[code]:,}: {self._one_of[code]}" for code in codes)
        total = sum(self.problems[code] for code in codes)
        return [
            Check("prompt", None if self.askable else False, f"{total:,} of {self._whose} will be rejected; {text}")
        ]

    def _tokens(self) -> list[Check]:
        usage = expected_usage(self._task, self.first)
        if usage is None or not self.askable:
            return []  # what media and turns take is known only after some records were asked
        one_vote, votes = self._usage(usage), self._settings.quality.fewest
        text = f"about {votes * one_vote.prompt:,} in and {votes * one_vote.completion:,} out"
        usd = votes_usd(self._settings, one_vote)
        if usd is not None:
            text += f": about {dollars(usd)}"
        each = f"{votes * one_vote.total // self.askable:,} a record"
        same = f"; {self.repeated_texts:,} ask the same as another" if self.repeated_texts else ""
        return [Check("tokens", True, f"{text} ({each}){'' if self.whole else f', for {self._whose}'}{same}")]

    def _usage(self, each: Usage) -> Usage:
        """Estimate one vote on all: the mean of the first records, corrected by the length of the other prompts."""
        first = InputScan(self._settings, self._task)
        first.add(self.first[:SAMPLE_RECORDS] if self.records > SAMPLE_RECORDS else [])
        more = self.bytes - first.bytes * self.askable // first.askable if first.askable else 0
        prompt, cached = max(0, each.prompt * self.askable + more // 4), each.cached * self.askable
        return Usage(prompt, each.completion * self.askable, cached=cached)

    def _key(self, formats: frozenset[str]) -> Check:
        key = self._settings.input.key
        if key is None and "sql" in formats:
            message = "the key of a row is its place, which the database may change: set input.key"
            ordered = "" if self._settings.input.query is None else ", and ORDER BY in the query"
            return Check("key", None, message + ordered)
        if key is None and formats and formats <= FILE_FORMATS:
            return Check("key", True, "the key of a file is its path")
        if no_key := self.problems["no_key"]:
            ok = None if no_key < self.records else False
            return Check("key", ok, f"{no_key:,} of {self._whose} have no key and will be rejected; for example: "
                         f"{self._one_of['no_key']}")  # fmt: skip
        if key is None:
            return Check(
                "key", True, "the key of a record is its place; set input.key if the file has a column with keys"
            )
        if self.repeated_keys:
            message = f"{self.repeated_keys:,} of {self._whose} repeat a key: these will be rejected"
            return Check("key", None, message)
        return Check("key", True, f"{key!r} is unique for {self._whose}")

    def _labels(self) -> list[Check]:
        """Check whether the gold labels in the input are labels of the task."""
        results = []
        fields = label_fields(self._settings)
        for label, column in self._gold.items():
            field = fields.get(label)
            labels = field.values if field is not None and field.kind == "one" else None
            values = self.right[column]
            text = f"{column!r} holds " + ", ".join(
                f"{value or '(empty)'} {count:,}" for value, count in values.most_common(12)
            )
            known = None if labels is None else {_as_text(value) for value in labels} | {""}
            if unknown := [value for value in values if known is not None and value not in known]:
                results.append(Check("gold", None, f"{text}; no label of the task: {', '.join(unknown[:5])}"))
            else:
                results.append(Check("gold", True, text))
        return results


def _is_repeated(text: str, hashes: set[int]) -> bool:
    mark = hash(text)
    if mark in hashes:
        return True
    if len(hashes) < MOST_HASHES:
        hashes.add(mark)
    return False


def _as_text(value: JSON) -> str:
    return "" if value is None else str(value)


async def check_media(settings: Settings, task: Task, records: Sequence[Record]) -> Check:
    """Check whether the local media of the first records can be read. Nothing is sent or fetched."""
    readable = [record for record in records if record.problem is None][:MEDIA_RECORDS]
    loaded = tokens = 0
    faults: list[str] = []
    async with AsyncExitStack() as stack:
        try:
            loader = media_of(settings, task)
        except SetupError as error:
            return Check("media", False, str(error))
        stack.push_async_callback(loader.close)
        for record in readable:
            try:
                request = task.render(record)
                local = tuple(one for one in request.attachments if one.source[:4].lower() != "http")
                async with loader.attach(replace(request, attachments=local, messages=())) as sent:
                    loaded += len(local)
                    tokens += sent.size_tokens - request.size_tokens
            except MediaError as error:
                faults.append(str(error))
            except RenderError:
                pass  # the check of the prompt reports it
    count = f"the first {len(readable):,}"
    plain = "" if has_pillow() else "; pictures go as they are: pip install 'labelpipe[images]' to have them scaled"
    if not faults:
        each = tokens // max(1, len(readable))
        return Check("media", True, f"{loaded:,} in {count} records, about {each:,} tokens a record{plain}")
    ok = None if len(faults) < len(readable) else False
    return Check("media", ok, f"cannot be shown for {len(faults):,} of {count}; one: {faults[0]}{plain}")
