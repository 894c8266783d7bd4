"""Plans a run in shards: their number, their folders, and their settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline import codec
from pipeline.errors import ConfigError, SetupError
from pipeline.readers import is_url
from pipeline.settings import Settings
from pipeline.store import RunDir, write_whole

#: The folder of the shards in a run folder, and the files next to the shards.
FOLDER, PLAN, BASE, BOOK = "shards", "plan.json", "base.db", "leases.db"


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """How a run is divided: the number of shards, the run's id, and a digest of its task and input.

    A run can be divided several times, and `dealing` identifies each time. `folder` is where the shards have their
    folders or snapshots, if that is not the run folder.
    """

    shards: int
    run_id: str
    digest: str
    dealing: str = ""
    folder: str = ""

    @property
    def address(self) -> str:
        """The address at which the shards save snapshots; empty if they save none."""
        return self.folder if is_url(self.folder) else ""


def read_plan(run: Path) -> ShardPlan | None:
    """Read the plan from a run folder; None if there is none. Raises SetupError if it cannot be read."""
    path = run / FOLDER / PLAN
    try:
        stored: Mapping[str, Any] = codec.loads(path.read_bytes())
        names = [str(stored[name]) for name in ("run_id", "digest", "dealing", "folder") if name in stored]
        return ShardPlan(int(stored["shards"]), *names)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SetupError(f"{path}: cannot be read ({error!r}). Restore a copy of it.") from error


def write_plan(run: Path, plan: ShardPlan) -> None:
    """Write the plan. Raises StoreError."""
    write_whole(run / FOLDER / PLAN, codec.pretty(asdict(plan)))


def make_folder(run: Path, plan: ShardPlan) -> None:
    """Make the folder of the shards. If it is outside the run folder, link to it."""
    place = run / FOLDER
    if not plan.folder or plan.address:
        RunDir(place).open_for_writing().close()
        return
    try:
        there = shared_folder(plan.folder, plan.dealing)
        there.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.symlink_to(there, target_is_directory=True)
    except OSError as error:
        raise SetupError(f"scale.folder = {plan.folder}: cannot be used: {error.strerror or error}") from error


def folder_setting(folder: str | None) -> str:
    """Return `scale.folder` as the plan stores it: an address, an absolute path, or an empty text."""
    if not folder or is_url(folder):
        return folder or ""
    return str(Path(folder).absolute())


def shared_folder(folder: str, dealing: str) -> Path:
    """Return the folder of this run's shards in `scale.folder`, which several runs can share."""
    return Path(folder).absolute() / dealing


def shard_folder(shards_folder: Path, number: int, shards: int) -> Path:
    """Return the run folder of a shard, such as `shards/03` of 16."""
    return shards_folder / f"{number:0{max(2, len(str(shards)))}}"


def shard_overrides(settings: Settings, number: int, shards: int) -> list[str]:
    """Return a shard's settings that differ from the run's, as for --set. Raises ConfigError for what shards cannot do.

    The lease server has the rate limits, the day's limit, and the budget. Each shard gets a share of the concurrency.
    """
    if "-" in settings.inputs():
        raise ConfigError("shards read the input once each, and stdin can be read only once: write it to a file")
    if settings.model.lane == "auto":
        raise ConfigError(
            'model.lane = "auto" in a run of shards: each would choose for itself. '
            'Label without shards, or with model.lane = "batch", "flex" or "live"'
        )
    limits = settings.limits
    # [output.sql] requires its format, although a shard writes no table.
    formats = ["csv"] if settings.output.sql is None else ["csv", "sql"]
    words = [f"input.shard={number}/{shards}", f"output.formats={codec.dumps(formats).decode()}"]
    words += ["output.report=false", "notify.on=[]"]
    if limits.concurrency != "auto":
        words.append(f"limits.concurrency={math.ceil(int(limits.concurrency) / shards)}")
    words.append(f"limits.concurrency_max={math.ceil(limits.concurrency_max / shards)}")
    return words


def refuse_other_count(run: Path, plan: ShardPlan, shards: int) -> None:
    """Raise SetupError if the run has another number of shards."""
    if plan.shards != shards:
        raise SetupError(
            f"{run} is in {plan.shards} shards, and {shards} were asked for. Give --shards {plan.shards}, or put "
            f"them together first: labelpipe merge {run}"
        )
