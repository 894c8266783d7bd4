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
        default_factory=list,
        description="Fields of the record that hold images, which are shown after the text of the prompt.",
    )
    audio: Fields = Field(default_factory=list, description="Fields of the record that hold audio.")
    documents: Fields = Field(default_factory=list, description="Fields of the record that hold PDF documents.")
    root: Path | None = Field(
        None,
        description="The folder that must contain all local files. Unset: the folder of the input, or the current "
        "directory if the input is not a file. Set it if the media are elsewhere.",
    )
    detail: Literal["auto", "low", "high", "original"] = Field(
        "high", description="How closely the model looks at images, unless the prompt says it. Lower it to save tokens."
    )
    max_pixels: int | None = Field(
        None,
        ge=1_024,
        description="Scale images down to this many pixels. Unset: to what `detail` uses. Set it to save upload "
        "to other providers' models.",
    )
    max_bytes: int = Field(
        20_000_000,
        ge=1,
        description="The most bytes of one file, address, or data URL. Raise it for large photos or recordings.",
    )
    urls: Literal["pass", "fetch", "refuse"] = Field(
        "pass",
        description="What to do with addresses in a record: pass them on for the server to load, load them here, "
        "or refuse them. Use `fetch` if the server cannot reach them.",
    )
    http: bool = Field(False, description="Also accept addresses without TLS. Turn it on for a server of your own.")
    fetch_private: bool = Field(
        False,
        description="Also accept addresses of private networks and of this machine. Turn it on only for records "
        "that you trust.",
    )
    memory_mb: int = Field(
        512, ge=1, description="The most memory for loaded media at once. Raise it for many large files in flight."
    )
    pdf_as: Literal["images", "file"] = Field(
        "images",
        description="Send documents as one image per page (extra `pdf`), or as files, for models that accept files.",
    )
    pdf_pages: int = Field(
        20, ge=1, description="The most pages of a document that is shown as images. Raise it for long documents."
    )
    pdf_dpi: int = Field(
        110, ge=20, le=600, description="The resolution of pages, in dots per inch. Raise it for small print."
    )
