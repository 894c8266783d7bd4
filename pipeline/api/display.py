"""Results that show themselves, and plain functions made of asynchronous ones."""

from collections.abc import Callable, Coroutine, Generator, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any, ClassVar, NoReturn, ParamSpec, Self, TypeAlias, TypeVar
from urllib.parse import quote

from pipeline import show
from pipeline.errors import SetupError
from pipeline.runner import run_sync
from pipeline.settings import Settings
from pipeline.targets import load_settings

#: The settings, or the path of a config.
Config: TypeAlias = Settings | str | Path


def settings_of(config: Config) -> Settings:
    """The settings. Raises SetupError."""
    if isinstance(config, Settings):
        return config
    if isinstance(config, Mapping):
        raise SetupError("the config is a dict; expected a path or Settings, such as Settings.model_validate(config)")
    return load_settings(config)


_P = ParamSpec("_P")
_T = TypeVar("_T")


def sync_form(form: Callable[_P, Coroutine[Any, Any, _T]]) -> Callable[_P, _T]:
    """The plain form of an asynchronous function: `check` of `acheck`, with its parameters and its docstring."""

    @wraps(form)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return run_sync(form(*args, **kwargs))

    called.__name__ = called.__qualname__ = form.__name__.removeprefix("a")
    return called


def to_displayable(kind: type[_T], result: Any) -> _T:
    """A result as the class that shows it."""
    return kind(**{one.name: getattr(result, one.name) for one in fields(result)})


class Displayable:
    """Shows itself as the command line would.

    It may be awaited too, and then gives itself: up to 0.2 what gave it was a coroutine, and programs await it.
    """

    __slots__ = ()
    #: The name of the function in `show` that says it to a person.
    _view: ClassVar[str]

    def _lines(self) -> Sequence[str]:
        lines: Sequence[str] = getattr(show, self._view)(getattr(self, "facts", self))
        return lines

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
class DisplayableFacts(Displayable):
    """A result that is all in `facts`, the plain values that the command prints with `--json`."""

    facts: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.facts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.facts)

    def keys(self) -> KeysView[str]:
        """The names of the values, so that `dict()` takes them."""
        return self.facts.keys()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dict(self.facts)


def link(page: str) -> str:
    """A link to a file, which a notebook opens where it stands in or below its folder."""
    return f'<a href="{escape(quote(Path(page).as_posix()))}" target="_blank">{escape(page)}</a>'
