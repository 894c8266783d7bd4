"""Which shard has what: folders, settings, and the note that says how many there are."""

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

#: The folder of the shards in a run folder, and what is in it beside them.
FOLDER, PLAN, BASE, BOOK = "shards", "plan.json", "base.db", "leases.db"


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """What a run in shards keeps: how many there are, the run's id, and what they ask, as a digest.

    A run can be dealt out again and again: `dealing` tells which time it is. `folder` is where their folders or states
    are, if it is not in the run folder.
    """

    shards: int
    run_id: str
    digest: str
    dealing: str = ""
    folder: str = ""

    @property
    def address(self) -> str:
        """The address at which the shards keep their states; empty where they keep none."""
        return self.folder if is_url(self.folder) else ""


def read_plan(run: Path) -> ShardPlan | None:
    """The note of a run in shards; None where there are none. Raises SetupError for one that cannot be read."""
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
    """Keep the note. Raises StoreError."""
    write_whole(run / FOLDER / PLAN, codec.pretty(asdict(plan)))


def make_folder(run: Path, plan: ShardPlan) -> None:
    """Make the folder of the shards. Where it is not in the run folder, a link there leads to it."""
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
    """`scale.folder` as it is noted: an address, or the path from the root; empty where there is none."""
    if not folder or is_url(folder):
        return folder or ""
    return str(Path(folder).absolute())


def shared_folder(folder: str, dealing: str) -> Path:
    """The folder of the shards in `scale.folder`, which other runs may have as well."""
    return Path(folder).absolute() / dealing


def shard_folder(shards_folder: Path, number: int, shards: int) -> Path:
    """The run folder of a shard: `shards/03` of 16."""
    return shards_folder / f"{number:0{max(2, len(str(shards)))}}"


def shard_overrides(settings: Settings, number: int, shards: int) -> list[str]:
    """What a shard's settings say otherwise, as for --set. Raises ConfigError for what cannot be dealt out.

    The limits a minute, a day and the budget are the lease server's; of the calls in flight each shard has its part.
    """
    if "-" in settings.inputs():
        raise ConfigError("shards read the input once each, and stdin can be read only once: write it to a file")
    if settings.model.lane == "auto":
        raise ConfigError(
            'model.lane = "auto" in a run of shards: each would choose for itself. '
            'Label without shards, or with model.lane = "batch", "flex" or "live"'
        )
    limits = settings.limits
    # [output.sql] and its format belong together; a shard writes no table all the same.
    formats = ["csv"] if settings.output.sql is None else ["csv", "sql"]
    words = [f"input.shard={number}/{shards}", f"output.formats={codec.dumps(formats).decode()}"]
    words += ["output.report=false", "notify.on=[]"]
    if limits.concurrency != "auto":
        words.append(f"limits.concurrency={math.ceil(int(limits.concurrency) / shards)}")
    words.append(f"limits.concurrency_max={math.ceil(limits.concurrency_max / shards)}")
    return words


def refuse_other_count(run: Path, plan: ShardPlan, shards: int) -> None:
    """Raises SetupError where the run is in another number of shards."""
    if plan.shards != shards:
        raise SetupError(
            f"{run} is in {plan.shards} shards, and {shards} were asked for. Give --shards {plan.shards}, or put "
            f"them together first: labelpipe merge {run}"
        )
