"""The table [task.media]: what is shown beside the prompt's text, what may be, and how."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.settings.checks import Takes
from pipeline.settings.section import Path, Section, Texts

Fields = Annotated[Texts, Takes('a list of fields, like ["photo"]')]


class MediaSettings(Section):
    """Pictures, sounds and documents of the records."""

    images: Fields = Field(
        default_factory=list, description="The record's fields with pictures, which are shown after the prompt's text."
    )
    audio: Fields = Field(default_factory=list, description="The same for recordings.")
    documents: Fields = Field(default_factory=list, description="The same for PDF documents.")
    root: Path | None = Field(
        None,
        description="The folder below which local files must be; unset: the one that the input lies in, or the current "
        "directory where the input is no file.",
    )
    detail: Literal["auto", "low", "high", "original"] = Field(
        "high", description="How closely the model looks at pictures, where the prompt does not say it."
    )
    max_pixels: int | None = Field(
        None, ge=1_024, description="Scale pictures down to so many pixels; unset: to what `detail` uses of them."
    )
    max_bytes: int = Field(20_000_000, ge=1, description="The most that one file, address or data URL may hold.")
    urls: Literal["pass", "fetch", "refuse"] = Field(
        "pass", description="Addresses in a record: passed on for the server to load, loaded here, or refused."
    )
    http: bool = Field(False, description="Take addresses without TLS too.")
    fetch_private: bool = Field(False, description="Take addresses of private networks and of this machine too.")
    memory_mb: int = Field(512, ge=1, description="The most that loaded media may take in memory at once.")
    pdf_as: Literal["images", "file"] = Field(
        "images", description="Documents as a picture a page (extra `pdf`), or as the files they are."
    )
    pdf_pages: int = Field(20, ge=1, description="The most pages that a document may have to be shown as pictures.")
    pdf_dpi: int = Field(110, ge=20, le=600, description="How fine pages are drawn, in dots an inch.")
