"""The table [task.media]: what is shown beside the prompt's text, what may be, and how."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.settings.checks import Takes
from pipeline.settings.section import Path, Section, Texts

Fields = Annotated[Texts, Takes('a list of fields, like ["photo"]')]


class MediaSettings(Section):
    """Pictures, sounds and documents of the records."""

    images: Fields = Field(default_factory=list)
    audio: Fields = Field(default_factory=list)
    documents: Fields = Field(default_factory=list)
    root: Path | None = None
    detail: Literal["auto", "low", "high", "original"] = "high"
    max_pixels: int | None = Field(None, ge=1_024)
    max_bytes: int = Field(20_000_000, ge=1)
    urls: Literal["pass", "fetch", "refuse"] = "pass"
    http: bool = False
    fetch_private: bool = False
    memory_mb: int = Field(512, ge=1)
    pdf_as: Literal["images", "file"] = "images"
    pdf_pages: int = Field(20, ge=1)
    pdf_dpi: int = Field(110, ge=20, le=600)
