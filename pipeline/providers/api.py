"""What an API is to the HTTP provider: an address, how a request is written, and how an answer is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.records import JSON, Answer, Request, Usage


@dataclass(frozen=True, slots=True)
class Reading:
    """What an answer says; `model` is None where it names none."""

    answer: Answer
    usage: Usage
    model: str | None


@dataclass(frozen=True, slots=True)
class Api:
    """One dialect. Requests and answers have the Chat Completions form elsewhere; it translates.

    `path` stands behind the base address. `body` writes a request. `read` reads the content of a success, given the
    secrets to cut out of what an error says; it raises a CallError where that holds no answer.
    """

    path: str
    body: Callable[[Request], dict[str, JSON]]
    read: Callable[[bytes, Sequence[str]], Reading]
