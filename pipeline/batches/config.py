"""What a session does with batches: its mode, the settings of the lane, and how it may end."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from pipeline.errors import LabelpipeError


class BatchMode(enum.StrEnum):
    """What a session does with batches."""

    #: sends all there is, and waits for it
    WAIT = "wait"
    #: sends what can be sent, collects what is there, and ends
    NO_WAIT = "no_wait"
    #: cancels what is open, collects what was answered, and ends
    CANCEL = "cancel"


class BatchesCancelledError(LabelpipeError):
    """The batches were cancelled, as was wanted, and what they had answered is collected."""

    code = "batches_cancelled"


class BatchesOpenError(LabelpipeError):
    """Batches are at the server, and nobody waits for them."""

    code = "batches_open"


@dataclass(frozen=True, slots=True)
class LaneConfig:
    """The settings of the lane.

    `model` is the one whose requests may go into a part. `poll_s` is how often a batch is looked at. `enqueued_tokens`
    is how much may be queued; None: learned. `forgets`: the server loses its batches when it ends, as the built-in
    endpoint does. `first_part` and `part_records` are how many lines the first part and each other one have.
    `repairs_live`: what is asked again, and later turns, are asked at once, and not in the next batch. `max_attempts`
    bounds how often the line of a record may fail through the server's fault. `shares`: whether identical requests are
    asked once. `goes_live`: parts are collected only, and what is asked is asked live. `stops_at_day_limit`: the run
    ends where a batch does not fit the day's requests.
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
