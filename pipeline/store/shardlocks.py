"""The folders of a run in shards: their locks (that of the lease server, and one of each shard), and their end."""

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline.errors import RunInUseError
from pipeline.store.rundir import RunDir


@contextmanager
def lock_shards(run: Path) -> Iterator[bool]:
    """Keep shards and their lease server out while the block lasts; gives False where one is at work.

    Their locks are asked, since a process on another machine cannot be seen.
    """
    folder = run / "shards"
    with ExitStack() as stack:
        try:
            for one in (folder, *(one for one in sorted(folder.iterdir()) if one.name.isdigit())):
                stack.enter_context(RunDir(one).open_for_writing())
            is_locked = True
        except FileNotFoundError:
            is_locked = True
        except RunInUseError:
            stack.close()
            is_locked = False
        yield is_locked


def clear_merged(run_dir: RunDir) -> None:
    """Remove what a merge has left, also where the shards are in another folder to which only a link is here."""
    if run_dir.merged.is_symlink():
        shutil.rmtree(run_dir.merged.resolve(), ignore_errors=True)
        run_dir.merged.unlink()
    shutil.rmtree(run_dir.merged, ignore_errors=True)
