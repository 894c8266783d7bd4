"""What follows an answer: its calls go to the user's callbacks, and in a conversation the model is told what came."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from pipeline import codec
from pipeline.engine.journal import Journal
from pipeline.engine.trial import Trial
from pipeline.engine.writer import LAST_TRY_S, TRY_EVERY_S
from pipeline.errors import AnswerError, StoppedError, StoreError
from pipeline.limits import Gate
from pipeline.records import JSON, Answer, Call, Labelled, Record, Request, Said, Turn
from pipeline.stats import Stats

log = logging.getLogger("labelpipe")


class TaskPart(Protocol):
    """What the engine needs of a task."""

    @property
    def max_turns(self) -> int: ...
    @property
    def has_callback(self) -> bool: ...
    def calls(self, answer: Answer, record: Record, before: Sequence[Said] = ()) -> tuple[Said, ...]: ...
    def labelled(self, said: Sequence[Said], reply: str | None, record: Record) -> Labelled: ...
    def repair(self, request: Request, answer: Answer, error: AnswerError, *, base: int | None = None) -> Request: ...
    def next_turn(self, request: Request, answer: Answer, said: Sequence[Said]) -> Request: ...
    async def respond(self, said: Said, record: Record, call: Call) -> Said: ...


def idempotency_key(
    run_id: str, key: str, *, request_digest: bytes, request_id: str | None, turn: int, place: int, said: Said
) -> str:
    """The name of one call of one record's answer: the same after a resume and in a replay, else never the same."""
    # The call's own id too: not every server names its answers, and a retry may be answered in the same words.
    call = [said.call.id, said.tool, said.call.arguments]
    parts = [run_id, key, request_digest.hex(), request_id, turn, place, *call]
    return codec.digest128(codec.dumps(parts)).hex()


class Responder:
    """Hands the calls of an answer to the task's callbacks; what was paid for is in the ledger before that."""

    def __init__(
        self,
        task: TaskPart,
        gate: Gate,
        *,
        journal: Journal | None = None,
        run_id: str = "",
        stats: Stats | None = None,
    ) -> None:
        self.task = task
        self._stats = stats
        self._gate = gate
        self._journal = journal
        self._run_id = run_id

    def kept(self, trial: Trial) -> None:
        """Take up what an earlier session has paid for."""
        if self._journal is not None:
            found = self._journal.take(trial.request.record.key)
            if all(turn.request_digest == trial.digest for turn in found):
                trial.kept = list(found)
            else:  # of a prompt that has changed since: nothing can be made of it, but it was paid for
                trial.write_off(found)

    async def respond(self, trial: Trial, answer: Answer, said: tuple[Said, ...]) -> tuple[Said, ...]:
        """The calls with what came of each. Raises CallbackError."""
        self._tell_readings(trial.request.record, said)
        goes_on = self.task.max_turns > 1
        if not said or not (goes_on or self.task.has_callback):
            return said
        restored = len(trial.results)
        done = [with_result(one, result) for one, result in zip(said, trial.results, strict=False)]
        if not restored:
            await self._keep(trial, answer)
        for place, one in enumerate(said[len(done) :], start=len(done)):
            record = trial.request.record
            call = self._call(record.key, trial.digest, trial.request_id, trial.turn, place, one)
            done.append(await self.task.respond(one, record, call))
            trial.results.append({"extra": done[-1].extra, "result": done[-1].result})
            if goes_on or place + 1 < len(said):
                await self._keep(trial, answer)
        return tuple(done)

    def _tell_readings(self, record: Record, said: tuple[Said, ...]) -> None:
        """What was read although it was not as it should be is counted, and told."""
        readings = sorted({reading for one in said for reading in one.readings})
        if readings and self._stats is not None:
            self._stats.read(readings)
            log.info("read all the same", extra={"facts": {"key": record.key, "with": readings}})

    async def again(
        self,
        said: tuple[Said, ...],
        record: Record,
        *,
        digest: bytes | None,
        request_id: str | None,
        key: str | None = None,
    ) -> tuple[Said, ...]:
        """The calls of an answer that is kept, handed to the callbacks (again). Raises CallbackError.

        `key` is the name that the record had when it was asked, where it has another one now.
        """
        if not self.task.has_callback:
            return said
        return tuple(
            [
                await self.task.respond(
                    one, record, self._call(key or record.key, digest or b"", request_id, 0, place, one)
                )
                for place, one in enumerate(said)
            ]
        )

    def _call(self, key: str, digest: bytes, request_id: str | None, turn: int, place: int, one: Said) -> Call:
        name = idempotency_key(
            self._run_id, key, request_digest=digest, request_id=request_id, turn=turn, place=place, said=one
        )
        return Call(name, turn, one.tool)

    async def _keep(self, trial: Trial, answer: Answer) -> None:
        """Until the ledger has the answer it keeps its place at the gate: a kill costs no more than is in flight."""
        if self._journal is None:
            return
        self._gate.handed_over()
        try:
            await self._kept_at_last(self._journal, trial.as_turn(answer, time.time()))
        finally:
            self._gate.written(1)

    async def _kept_at_last(self, journal: Journal, turn: Turn) -> None:
        """A ledger that cannot be written stops the run; as long as the writer does, the answer waits for it.

        Raises StoppedError where it comes to nothing: no callback is called with an answer that may be lost.
        """
        clock = asyncio.get_running_loop().time
        give_up_at = clock() + LAST_TRY_S
        while True:
            try:
                return await journal.keep(turn)
            except StoreError as error:
                self._gate.stop(error)
                if clock() >= give_up_at:
                    raise StoppedError(str(error)) from error
            await asyncio.sleep(TRY_EVERY_S)


def with_result(said: Said, kept: Mapping[str, JSON]) -> Said:
    """The call with what its callback gave back, as the ledger has it."""
    return replace(said, extra=kept["extra"], result=kept["result"])


def last_words(answer: Answer, said: Sequence[Said], task: TaskPart) -> str | None:
    """What the model said at the end; None where a conversation was cut off while it still called."""
    if task.max_turns > 1:
        return None if said else answer.text or ""
    return answer.text
