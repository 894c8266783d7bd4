"""What an API is to the endpoint: its requests become those of Chat Completions, and completions become its answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.rehearsal.checks import Body
from pipeline.rehearsal.replies import ErrorReply


@dataclass(frozen=True, slots=True)
class Dialect:
    """`read` gives the request of Chat Completions, or what is wrong with it; `write` the answer for a completion and
    the request as it came; `named` says an error about the request in this API's names.
    """

    read: Callable[[Body], Body | ErrorReply]
    write: Callable[[Mapping[str, Any], Body], Mapping[str, Any]]
    named: Callable[[ErrorReply], ErrorReply]


CHAT = Dialect(lambda body: body, lambda completion, _: completion, lambda error: error)
