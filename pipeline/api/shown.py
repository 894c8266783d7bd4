"""Results that show themselves."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NoReturn, Self
from urllib.parse import quote


class Shown:
    """Shows itself as the command line would.

    It may be awaited too, and then gives itself: up to 0.2 what gave it was a coroutine, and programs await it.
    """

    __slots__ = ()

    def _lines(self) -> Sequence[str]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return "\n".join(self._lines())

    def __await__(self) -> Generator[None, None, Self]:
        yield from ()
        return self

    def send(self, _value: None) -> NoReturn:
        """A coroutine's, at its end at once: `asyncio.run(verify(...))`."""
        raise StopIteration(self)

    def throw(self, *error: Any) -> NoReturn:
        """A coroutine's."""
        raise error[-1]

    def close(self) -> None:
        """A coroutine's."""


@dataclass(frozen=True, slots=True, repr=False)
class ShownFacts(Shown):
    """A result that is all in `facts`, the plain values that the command prints with `--json`."""

    facts: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.facts[name]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dict(self.facts)


def link(page: str) -> str:
    """A link to a file, which a notebook opens where it stands in or below its folder."""
    return f'<a href="{escape(quote(Path(page).as_posix()))}" target="_blank">{escape(page)}</a>'
