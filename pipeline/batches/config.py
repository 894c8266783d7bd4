"""Defines a session's batch mode, the settings of the lane, and how the session may end."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pipeline.errors import LabelpipeError


class BatchMode(enum.StrEnum):
    """What a session does with batches."""

    #: Sends everything and waits for it.
    WAIT = "wait"
    #: Sends what can be sent, collects what is ready, and ends.
    NO_WAIT = "no_wait"
    #: Cancels open batches, collects their answers, and ends.
    CANCEL = "cancel"


class BatchesCancelledError(LabelpipeError):
    """The batches were canceled on request, and their answers are collected."""

    code = "batches_cancelled"


class BatchesOpenError(LabelpipeError):
    """Batches are at the server, and the session does not wait for them."""

    code = "batches_open"


@dataclass(frozen=True, slots=True)
class LaneConfig:
    """The settings of the lane.

    Only requests for `model` go into parts. `poll_s` is the time between polls of a batch. `enqueued_tokens` is how
    much may be queued (None: learned). `forgets`: the server loses its batches when it ends, as the built-in endpoint
    does. `first_part` and `part_records` are the lines of the first part and of each other one. `repairs_live`: repairs
    and later turns are asked at once, and not in the next batch. `max_attempts` bounds how often a record's line may
    fail through the server's fault. `shares`: identical requests are asked only once. `goes_live`: existing parts are
    collected, and new requests are live. `stops_at_day_limit`: the run ends if a batch does not fit the day's requests.
    """

    model: str
    poll_s: float
    enqueued_tokens: int | None
    forgets: bool
    first_part: int
    part_records: int
    repairs_live: bool
    max_attempts: int
    shares: bool
    goes_live: bool
    stops_at_day_limit: bool
    mode: BatchMode
