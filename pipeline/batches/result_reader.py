"""Reads what came back for a part. Each line of its two files is an answer, a refusal, or a record to ask again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.batches.packer import line_name, place_of
from pipeline.engine import Verdict, verdict_of
from pipeline.errors import CallError, RequestShapeError
from pipeline.limits import Price, Tariff
from pipeline.providers import BatchApi, LineEnd
from pipeline.records import Problem, Response, SavedAnswer, Usage, add_usd
from pipeline.store import BatchBook, Item, ItemState, LineResult, Part, PartState

#: Lines that are processed and saved at a time.
BLOCK = 500
#: Returns the prices of a model: in a batch, and live.
PricesOf = Callable[[str], tuple[Price | None, Price | None]]
#: Called with the current part and the responses that were saved.
AtLanding = Callable[[Part, Sequence[Response]], None]


class ResultReader:
    """Reads the files of parts into the ledger. Lines that were read before a kill are there and are not read again."""

    def __init__(self, api: BatchApi, book: BatchBook, prices_of: PricesOf, at_landing: AtLanding) -> None:
        self._api = api
        self._book = book
        self._prices_of = prices_of
        self._at_landing = at_landing

    async def fetch(self, part: Part, path_of: Callable[[str], Path]) -> None:
        """Download the files of a batch that has ended to `path_of` "output" and "error", replacing old ones."""
        for name in ("output", "error"):
            file_id, path = part.facts.get(f"{name}_file_id"), path_of(name)
            path.unlink(missing_ok=True)
            if not file_id:
                continue
            try:
                await self._api.fetch(str(file_id), path)
            except CallError as error:
                if name == "output" or error.status != 404:
                    raise

    async def read(self, part: Part, files: Sequence[Path], *, give_up: bool) -> tuple[Part, list[CallError]]:
        """Return the part after each line has a result, and the errors that concern more than one record.

        Raises RequestShapeError if the files have lines and none can be read, unless the part is given up. Asking
        again would cost the same again, most likely in vain.
        """
        waiting = await self._book.waiting(part.number)
        expected = len(waiting)
        counts = Counter[str](part.books.get("lines") or {})
        doubts: dict[int, CallError] = {}
        for path in files:
            async for block in _blocks(path):
                landed, part = self._read_lines(part, block, waiting, counts, doubts)
                await self._land(part, landed)
        if counts["unknown"] and len(waiting) == expected and not give_up:
            paths = ", ".join(str(path) for path in files)
            raise RequestShapeError(
                f"none of the {expected:,} lines of batch {part.batch_id} can be read. Its files are kept: {paths}. "
                "labelpipe cancel gives the batch up"
            )
        left = [LineResult(place, ItemState.AGAIN) for place in sorted(waiting)]
        counts["missing"] += len(left)
        graver = [one for one in doubts.values() if not counts["answered"] or verdict_of(one) is Verdict.ABORT]
        if not counts["answered"]:
            # No line was answered, so the records are not at fault. They are asked again once the cause is fixed.
            left += [LineResult(place, ItemState.AGAIN) for place in doubts]
        part = replace(part, state=PartState.READ, books={**part.books, "lines": dict(counts)})
        await self._land(part, left)
        return part, graver

    async def _land(self, part: Part, landed: Sequence[LineResult]) -> None:
        await self._book.record_results(part, landed)
        self._at_landing(part, [one.answer.response for one in landed if one.answer is not None])

    def _read_lines(
        self,
        part: Part,
        lines: Sequence[bytes],
        waiting: dict[int, Item],
        counts: Counter[str],
        doubts: dict[int, CallError],
    ) -> tuple[list[LineResult], Part]:
        """Return the results of these lines, and remove their records from `waiting`."""
        landed: list[LineResult] = []
        model = part.books["model"]
        used, cost = Usage(*(part.books.get("usage") or ())), part.books.get("cost_usd", 0.0)
        records = part.books.get("records", 0)
        for line in lines:
            end = self._api.read(line, part.endpoint, model)
            place = None if end is None else place_of(end.name, part.number)
            item = None if place is None else waiting.pop(place, None)
            if end is None or place is None or item is None:
                # The line is a repeat, of which the first counts, or not ours.
                counts["unknown" if place is None or place >= part.lines else "twice"] += 1
                continue
            one = self._landing(place, item, end, model, doubts)
            counts[one.state.value] += 1
            if one.answer is not None:
                records += item.number == 0
                used += one.answer.response.usage
                cost = add_usd(cost, one.answer.response.cost_usd)
            landed.append(one)
        totals = {"lines": dict(counts), "records": records, "usage": list(used.counts), "cost_usd": cost}
        price, standard = self._prices_of(model)
        if price is not None and standard is not None:
            totals |= {"standard_usd": standard.cost_usd(used)}
            totals |= {"cached_usd": price.saved_usd(used), "cache_write_usd": price.cache_write_usd(used)}
        books = {**part.books, **totals}
        return landed, replace(part, books=books)

    def _landing(self, place: int, item: Item, end: LineEnd, model: str, doubts: dict[int, CallError]) -> LineResult:
        if end.response is not None:
            response = end.response
            name = response.request_id or f"batch-{line_name(item.part, place)}"
            cost_usd = Tariff(self._prices_of(model)[0]).cost_usd(response.usage)
            answer = SavedAnswer(
                key=item.record.key,
                number=item.number,
                request_digest=item.digest,
                response=replace(response, cost_usd=cost_usd, request_id=name),
                calls=item.tries + 1,
                at=time.time(),
            )
            return LineResult(place, ItemState.ANSWERED, answer)
        if end.error is None:
            return LineResult(place, ItemState.AGAIN)
        problem = Problem(end.error.code, str(end.error))
        match verdict_of(end.error):
            case Verdict.REJECT:
                return LineResult(place, ItemState.REFUSED, problem=problem)
            case Verdict.RETRY:
                return LineResult(place, ItemState.AGAIN, problem=problem, is_try=True)
            case Verdict.COOL_DOWN:
                return LineResult(place, ItemState.AGAIN, problem=problem)
            case Verdict.ABORT:
                doubts[place] = end.error
                return LineResult(place, ItemState.AGAIN)
            case _:
                # The error concerns all records if no line was answered, and else this one.
                doubts[place] = end.error
                return LineResult(place, ItemState.REFUSED, problem=problem)


async def _blocks(path: Path) -> AsyncIterator[list[bytes]]:
    """Yield the lines of a file in blocks, however long it is."""
    block, offset = await asyncio.to_thread(_lines_from, path, 0)
    while block:
        yield block
        block, offset = await asyncio.to_thread(_lines_from, path, offset)


def _lines_from(path: Path, offset: int) -> tuple[list[bytes], int]:
    """Return the lines of the block that begins at `offset`, and where the next one begins.

    The file is opened for each block, so that a cancel or an error between two blocks leaves none open.
    """
    lines: list[bytes] = []
    with path.open("rb") as file:
        file.seek(offset)
        while len(lines) < BLOCK and (line := file.readline()):
            if line.strip():
                lines.append(line)
        return lines, file.tell()
