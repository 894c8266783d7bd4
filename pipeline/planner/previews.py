"""Labels a few records, or shows their requests, without writing anything."""

import heapq
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from functools import partial

from pipeline.engine import Asker, Beginning, InterviewContext, is_hopeless
from pipeline.errors import (
    CallTimeoutError,
    InputError,
    LabelpipeError,
    RateLimitedError,
    RenderError,
    UnavailableError,
    did_you_mean,
)
from pipeline.facts import Preview
from pipeline.limits import Gate
from pipeline.parts import (
    admission_of,
    advice_context,
    gold_fields,
    is_simulated,
    media_for,
    open_provider,
    panel_of,
    read,
    rules_of,
    sample_rank,
    sources_of,
    tariff_of,
    task_of,
    validate_prompt,
    validate_selection,
    with_call_form,
)
from pipeline.readers import ReadProgress, RecordInput
from pipeline.records import Outcome, Problem, Provider, Record, Request, Response, Status
from pipeline.settings import Settings
from pipeline.show import advise
from pipeline.stats import Stats
from pipeline.task import Task
from pipeline.threads import in_daemon

#: Unanswered calls, or refusals by rate limits, in a row before a preview reports the problem.
PATIENCE = 3
#: The most rejected records to show before the ones that are asked.
REJECTED_SHOWN = 10
#: Keys to search for the one that was probably meant.
KEYS_KNOWN = 10_000


async def preview(
    settings: Settings,
    n: int = 5,
    *,
    records: RecordInput | None = None,
    keys: Collection[str] = (),
    sample: int = 0,
    prompt: bool = False,
) -> Preview:
    """Label the first `n` records and write nothing. A callback is not called.

    `records` replace the config's input, as in `run`. `keys` are those of further records to label, and `sample` is how
    many more to draw from all, the same ones each time. With `prompt`, nothing is sent, and the result has the
    requests. Raises SetupError, also for a key that no record has.
    """
    task = task_of(settings)
    if not prompt:
        validate_prompt(task)
    items = await _pick_items(settings, task, records, n, _RecordPicker(keys, sample, settings.input.seed))
    if prompt:
        rejected = [item for item in items if isinstance(item, Outcome)]
        requests = [with_call_form(settings, item) for item in items if isinstance(item, Request)]
        return Preview(task.columns, rejected, 0.0, is_simulated(settings), requests=requests)
    return await _ask(settings, task, items)


async def _ask(settings: Settings, task: Task, items: Sequence[Request | Outcome]) -> Preview:
    stopped = None
    outcomes: list[Outcome] = []
    async with AsyncExitStack() as stack:
        provider = await open_provider(settings, stack)
        admission = admission_of(settings)
        # A preview writes nothing, and a callback may do anything.
        context = InterviewContext(task, callbacks=False, panel=panel_of(settings, task))
        prepare = await media_for(settings, task, stack)
        fail_fast = _FailFastProvider(provider, admission.gate)
        # Somebody waits for the preview, so no call waits for capacity at the flex tier.
        rules, stats = replace(rules_of(settings), flex_patience_s=None), Stats(time.monotonic)
        ping = provider.ping
        tariff = tariff_of(settings)
        asker = Asker(fail_fast, context, admission, stats, rules=rules, tariff=tariff, prepare=prepare, ping=ping)
        stack.callback(asker.close)
        for item in items:
            try:
                outcome = item if isinstance(item, Outcome) else await asker.ask(item)
                outcomes += [outcome] if outcome is not None else []
            except LabelpipeError as error:
                advice = advise(advice_context(settings), [str(error)])
                stopped = f"{error}\n{advice}" if advice else str(error)
                break
    costs = [outcome.cost_usd for outcome in outcomes]
    cost = None if None in costs else sum(cost for cost in costs if cost is not None)
    simulated = is_simulated(settings) or provider.simulated is True
    hopeless = is_hopeless(admission.gate.stopped) and not stats.answers
    return Preview(task.columns, outcomes, cost, simulated, stopped, hopeless, gold_fields(settings))


class _FailFastProvider:
    """Wraps the provider for a waiting user: several failures in a row shut the gate with their error."""

    def __init__(self, provider: Provider, gate: Gate) -> None:
        self._provider, self._gate = provider, gate
        self._failed = 0

    async def __call__(self, request: Request) -> Response:
        try:
            response = await self._provider(request)
        except (UnavailableError, CallTimeoutError, RateLimitedError) as error:
            self._failed += 1
            if self._failed >= PATIENCE or isinstance(error, CallTimeoutError):
                self._gate.stop(error)
            raise
        self._failed = 0
        return response


class _RecordPicker:
    """Picks the records with certain keys, and a sample, from batches. Raises InputError if a key is missing."""

    def __init__(self, keys: Collection[str], sample: int, seed: int) -> None:
        self._keys = tuple(keys)
        self._size = sample
        self._mark: Callable[[Record], int] = lambda record: sample_rank(record.key, seed)
        # Mutable state: the records found by key, some known keys for suggestions, and the sample so far.
        self._by_key: dict[str, Record] = {}
        self._known_keys: list[str] = []
        self._sample: list[Record] = []

    @property
    def is_complete(self) -> bool:
        """Whether no more records are needed. A sample needs all of them."""
        return not self._size and len(self._by_key) == len(set(self._keys))

    def add(self, batch: Sequence[Record]) -> None:
        """Add more records."""
        if self._keys:
            self._known_keys += [record.key for record in batch[: KEYS_KNOWN - len(self._known_keys)]]
            for record in batch:
                if record.key in self._keys:
                    self._by_key.setdefault(record.key, record)
        if self._size:
            # Same sample as `run --sample`, without the records that cannot be read.
            good = [record for record in batch if record.problem is None]
            drawn = heapq.nsmallest(self._size, [*self._sample, *good], key=self._mark)
            self._sample = drawn

    def records(self) -> list[Record]:
        """Return the records that were found."""
        for key in self._keys:
            if key not in self._by_key:
                raise InputError(f"no record has the key {key!r}{did_you_mean(key, self._known_keys)}")
        by_place = {record.ordinal: record for record in (*self._by_key.values(), *self._sample)}
        return list(by_place.values())


async def _pick_items(
    settings: Settings, task: Task, source: RecordInput | None, n: int, picker: _RecordPicker
) -> list[Request | Outcome]:
    """Return the chosen records, each as a request or a rejection: the first ones, those with the keys, the sample."""
    sources = await in_daemon(partial(sources_of, settings, source))
    await validate_selection(sources, settings)
    reading = ReadProgress()
    beginning = Beginning([one.name for one in sources], reading.describe_empty)
    first: list[Request | Outcome] = []
    async with aclosing(read(sources, settings, progress=reading)) as batches:
        async for batch in batches:
            if _count_requests(first) < n:
                first += beginning.passed([_item(task, record) for record in batch])
            picker.add(batch)
            if _count_requests(first) >= n and picker.is_complete:
                break
        else:
            first += beginning.ended(0) if n else []
    first = _cut(first, n)
    ordinals = {item.record.ordinal for item in first}
    return first + [_item(task, record) for record in picker.records() if record.ordinal not in ordinals]


def _item(task: Task, record: Record) -> Request | Outcome:
    problem = record.problem
    try:
        if problem is None:
            return task.render(record)
    except RenderError as error:
        problem = Problem(error.code, str(error))
    return Outcome(record=record, status=Status.REJECTED, problem=problem, cost_usd=0.0, finished_at=time.time())


def _count_requests(items: Sequence[Request | Outcome]) -> int:
    return sum(isinstance(item, Request) for item in items)


def _cut(items: Sequence[Request | Outcome], n: int) -> list[Request | Outcome]:
    """Return the items up to the n-th request, with only the first few rejected ones."""
    within: list[Request | Outcome] = []
    for item in items:
        if _count_requests(within) == n:
            break
        if isinstance(item, Request) or len(within) - _count_requests(within) < REJECTED_SHOWN:
            within.append(item)
    return within
