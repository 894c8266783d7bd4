"""Builds from [task.media] what prompts may show, and the loader."""

import os
from contextlib import AsyncExitStack
from pathlib import Path

from pipeline.engine import Prepare
from pipeline.errors import ConfigError, MissingExtraError
from pipeline.media import MediaLoader, MediaOptions, has_pdfium, has_pillow
from pipeline.settings import Settings
from pipeline.task import PromptMedia, Task

MB = 1024 * 1024
_GLOB = frozenset("*?[")


def show_options(settings: Settings) -> PromptMedia:
    """Return what is shown after the prompt's text, and the options that go into the fingerprint."""
    media = settings.task.media
    names = ("detail", "max_pixels", "pdf_as", "pdf_dpi", "images", "audio", "documents")
    return PromptMedia(
        images=media.images,
        audio=media.audio,
        documents=media.documents,
        root=folder_of_media(settings),
        must_exist=True,
        shape={name: getattr(media, name) for name in names},
    )


def media_of(settings: Settings, task: Task) -> MediaLoader:
    """Return the loader of the records' media, to be closed. Raises ConfigError, MissingExtraError."""
    from pipeline.providers import Fetcher, FetchOptions

    media = settings.task.media
    if "image" in task.media_kinds and media.max_pixels is not None and not has_pillow():
        raise MissingExtraError("task.media.max_pixels: scaling pictures down", "images")
    if "document" in task.media_kinds and media.pdf_as == "images" and not has_pdfium():
        raise MissingExtraError("showing the pages of a PDF as pictures", "pdf")
    if task.media_kinds:
        _refuse_everything(settings)
    return MediaLoader(
        MediaOptions(
            root=folder_of_media(settings),
            model=settings.model.name,
            detail=media.detail,
            max_pixels=media.max_pixels,
            max_bytes=media.max_bytes,
            urls=media.urls,
            hold_bytes=media.memory_mb * MB,
            pdf_as=media.pdf_as,
            pdf_pages=media.pdf_pages,
            pdf_dpi=media.pdf_dpi,
        ),
        Fetcher(FetchOptions(http=media.http, private=media.fetch_private)),
    )


async def media_for(settings: Settings, task: Task, stack: AsyncExitStack) -> Prepare | None:
    """Return a function that loads media before records are asked, closed with the stack; None without media."""
    if not task.media_kinds:
        return None
    loader = media_of(settings, task)
    stack.push_async_callback(loader.close)
    return loader.attach


def _refuse_everything(settings: Settings) -> None:
    """Require that the root exists, and that it is not the whole disk unless the user chose it."""
    folder = folder_of_media(settings)
    if not folder.is_dir():
        raise ConfigError(f"task.media.root is {str(folder)!r}: no such folder")
    if settings.task.media.root is None and folder.resolve() == Path(folder.resolve().anchor):
        raise ConfigError("task.media.root is not set, and the inputs have only the whole disk in common: set it")


def folder_of_media(settings: Settings) -> Path:
    """Return the folder that must contain local files: the one in the config, or else that of the inputs."""
    if settings.task.media.root is not None:
        return settings.find(settings.task.media.root)
    local = [path for path in settings.inputs() if path != "-" and "://" not in path]
    if not local:
        return Path()
    return Path(os.path.commonpath([_fixed_folder(path).resolve() for path in local]))


def _fixed_folder(path: str) -> Path:
    """Return the folder of an input; of a glob, the part before the first wildcard."""
    parts = Path(path).parts
    fixed = next((at for at, part in enumerate(parts) if _GLOB & set(part)), None)
    if fixed is not None:
        return Path(*parts[:fixed])
    return Path(path) if Path(path).is_dir() else Path(path).parent
