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
class _Tried:
    records: int = 0
    shown: int = 0
    tokens: int = 0
    faults: list[str] = field(default_factory=list)


async def look_at_media(settings: Settings, task: Task, records: Sequence[Record]) -> tuple[bool | None, str]:
    """Whether the media of the first records can be shown (None: not all of them), and what there is to say of it."""
    tried = _Tried()
    async with AsyncExitStack() as stack:
        try:
            loader = media_of(settings, task)
        except SetupError as error:
            return False, str(error)
        stack.push_async_callback(loader.close)
        for record in [record for record in records if record.problem is None][:LOADED]:
            await _try(loader, task, record, tried)
    return _told(tried)


async def _try(loader: MediaLoader, task: Task, record: Record, tried: _Tried) -> None:
    tried.records += 1
    try:
        request = task.render(record)
        local = tuple(one for one in request.attachments if one.source[:4].lower() != "http")
        async with loader.attach(replace(request, attachments=local, messages=())) as sent:
            tried.shown += len(local)
            tried.tokens += sent.size_tokens - request.size_tokens
    except MediaError as error:
        tried.faults.append(str(error))
    except RenderError:
        pass  # told by the look at the prompt


def _told(tried: _Tried) -> tuple[bool | None, str]:
    plain = "" if has_pillow() else "; pictures go as they are: pip install 'labelpipe[images]' to have them scaled"
    if not tried.faults:
        each = tried.tokens // max(1, tried.records)
        return True, f"{tried.shown:,} in the first {tried.records:,} records, about {each:,} tokens a record{plain}"
    ok = None if len(tried.faults) < tried.records else False
    return (
        ok,
        f"cannot be shown for {len(tried.faults):,} of the first {tried.records:,}; one: {tried.faults[0]}{plain}",
    )
