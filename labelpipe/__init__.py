"""labelpipe by its own name: `from labelpipe import run` is `from pipeline import run`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline import *  # noqa: F403 - the same names, each with its type


def _stands_in_the_way() -> str:
    """What another `pipeline` is, found before the package of that name; empty where it is ours."""
    ours = Path(__file__).parent.parent / "pipeline"
    spec = find_spec("pipeline")
    found = Path((spec and spec.origin) or ours)
    return "" if found.parent.resolve() == ours.resolve() else str(found)


if _other := _stands_in_the_way():
    raise ImportError(
        f"labelpipe's code is the package 'pipeline', and {_other} is found in its place. "
        "Rename that file or folder, or start Python from another folder."
    )


def __getattr__(name: str) -> Any:
    import pipeline

    if name.startswith("__") and name not in ("__all__", "__version__"):
        raise AttributeError(f"module 'labelpipe' has no attribute {name!r}")
    try:
        return getattr(pipeline, name)
    except AttributeError:
        raise AttributeError(f"module 'labelpipe' has no attribute {name!r}") from None


def __dir__() -> list[str]:
    import pipeline

    return dir(pipeline)


def main() -> None:
    """The `labelpipe` command."""
    from pipeline.cli import main as command

    command()
