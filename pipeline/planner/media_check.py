"""What the first records would show, tried before the run: local media only, nothing is sent or fetched."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

from pipeline.errors import MediaError, RenderError, SetupError
from pipeline.media import MediaLoader, has_pillow
from pipeline.parts import media_of
from pipeline.records import Record
from pipeline.settings import Settings
from pipeline.task import Task

#: Records whose media are loaded; a photo takes a tenth of a second.
LOADED = 20


@dataclass(slots=True)
class _MediaTrial:
    records: int = 0
    loaded: int = 0
    tokens: int = 0
    faults: list[str] = field(default_factory=list)


async def check_media(settings: Settings, task: Task, records: Sequence[Record]) -> tuple[bool | None, str]:
    """Whether the media of the first records can be shown (None: not all of them), and what there is to say of it."""
    trial = _MediaTrial()
    async with AsyncExitStack() as stack:
        try:
            loader = media_of(settings, task)
        except SetupError as error:
            return False, str(error)
        stack.push_async_callback(loader.close)
        for record in [record for record in records if record.problem is None][:LOADED]:
            await _try(loader, task, record, trial)
    return _result(trial)


async def _try(loader: MediaLoader, task: Task, record: Record, trial: _MediaTrial) -> None:
    trial.records += 1
    try:
        request = task.render(record)
        local = tuple(one for one in request.attachments if one.source[:4].lower() != "http")
        async with loader.attach(replace(request, attachments=local, messages=())) as sent:
            trial.loaded += len(local)
            trial.tokens += sent.size_tokens - request.size_tokens
    except MediaError as error:
        trial.faults.append(str(error))
    except RenderError:
        pass  # told by the look at the prompt


def _result(trial: _MediaTrial) -> tuple[bool | None, str]:
    plain = "" if has_pillow() else "; pictures go as they are: pip install 'labelpipe[images]' to have them scaled"
    if not trial.faults:
        each = trial.tokens // max(1, trial.records)
        return True, f"{trial.loaded:,} in the first {trial.records:,} records, about {each:,} tokens a record{plain}"
    ok = None if len(trial.faults) < trial.records else False
    return (
        ok,
        f"cannot be shown for {len(trial.faults):,} of the first {trial.records:,}; one: {trial.faults[0]}{plain}",
    )
