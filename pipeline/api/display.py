"""Results that display themselves, and plain forms of asynchronous functions."""

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
    """Return the settings. Raises SetupError."""
    if isinstance(config, Settings):
        return config
    if isinstance(config, Mapping):
        raise SetupError("the config is a dict; expected a path or Settings, such as Settings.model_validate(config)")
    return load_settings(config)


_P = ParamSpec("_P")
_T = TypeVar("_T")


def sync_form(form: Callable[_P, Coroutine[Any, Any, _T]]) -> Callable[_P, _T]:
    """Return the plain form of an asynchronous function (`check` of `acheck`), with its parameters and docstring."""

    @wraps(form)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        return run_sync(form(*args, **kwargs))

    called.__name__ = called.__qualname__ = form.__name__.removeprefix("a")
    return called


def to_displayable(kind: type[_T], result: Any) -> _T:
    """Convert a result to the class that displays it."""
    return kind(**{one.name: getattr(result, one.name) for one in fields(result)})


class Displayable:
    """A result that displays itself like the command line does.

    It can also be awaited and then returns itself, because up to version 0.2 the functions returned coroutines that
    programs awaited.
    """

    __slots__ = ()
    #: The name of the function in `show` that formats it for a person.
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
        """End at once, as a finished coroutine does: for `asyncio.run(verify(...))`."""
        raise StopIteration(self)

    def throw(self, *error: Any) -> NoReturn:
        """Raise the error, as a coroutine does."""
        raise error[-1]

    def close(self) -> None:
        """Do nothing. Coroutines have this method."""


@dataclass(frozen=True, slots=True, repr=False)
class DisplayableFacts(Displayable):
    """A result whose values are all in `facts`: the plain values that the command prints with `--json`."""

    facts: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.facts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.facts)

    def keys(self) -> KeysView[str]:
        """Return the names of the values, so that `dict()` accepts the result."""
        return self.facts.keys()

    def as_dict(self) -> dict[str, Any]:
        """Return the plain values, for JSON."""
        return dict(self.facts)


def link(page: str) -> str:
    """Return a link to a file. A notebook can open it if the file is in or below the notebook's folder."""
    return f'<a href="{escape(quote(Path(page).as_posix()))}" target="_blank">{escape(page)}</a>'
