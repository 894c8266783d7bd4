"""What an API is to the HTTP provider: an address, how a request is written, and how an answer is read."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.records import JSON, Answer, Request, Usage


class Reading(NamedTuple):
    """What an answer says. `model` and `service_tier`, which it was answered by, are None where it names none."""

    answer: Answer
    usage: Usage
    model: str | None
    service_tier: str | None = None


@dataclass(frozen=True, slots=True)
class Api:
    """One dialect. Requests and answers have the Chat Completions form elsewhere; it translates.

    `path` stands behind the base address. `body` writes a request. `read` reads the content of a success, given the
    secrets to cut out of what an error says; it raises a CallError where that holds no answer. `names` has the place
    of each parameter that stands elsewhere than in Chat Completions, and `refused` those that cannot be sent, each with
    the reason.
    """

    path: str
    body: Callable[[Request], dict[str, JSON]]
    read: Callable[[bytes, Sequence[str]], Reading]
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
