"""Defines what the HTTP provider needs of an API: its path, how to write a request, and how to read an answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.records import JSON, Answer, Request, Usage


class Reading(NamedTuple):
    """The content of an answer. `model` and `service_tier`, which answered it, are None if it does not name them."""

    answer: Answer
    usage: Usage
    model: str | None
    service_tier: str | None = None


@dataclass(frozen=True, slots=True)
class Api:
    """One format of requests and answers, translated from and to the Chat Completions form used elsewhere.

    `path` follows the base address. `body` writes a request. `read` reads the content of a success, and removes the
    given secrets from errors; it raises a CallError if there is no answer. `names` contains the place of each parameter
    that differs from Chat Completions, and `refused` the parameters that cannot be sent, each with the reason.
    """

    path: str
    body: Callable[[Request], dict[str, JSON]]
    read: Callable[[bytes, Sequence[str]], Reading]
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
