"""[batch], [flex], and [scale]: how a run uses the cheaper lanes, and how many processes it uses."""

from typing import Literal

from pydantic import Field

from pipeline.settings.section import Section, Text


class BatchSettings(Section):
    """How the batch lane sends and collects, with `model.lane = "batch"`."""

    poll_s: float = Field(30, gt=0)
    first_part: int = Field(50, ge=1, le=50_000)
    part_records: int = Field(5000, ge=1, le=50_000)
    enqueued_tokens: int | None = Field(None, ge=1)
    finish: Literal["live", "batch"] = "live"


class FlexSettings(Section):
    """How long a call waits for the flex tier, with `model.lane = "flex"`."""

    patience_s: float = Field(600, ge=0)


class ScaleSettings(Section):
    """How many processes label the input."""

    shards: int | None = Field(None, ge=1, le=1024)
    engine: Literal["local", "ray"] = "local"
    folder: Text | None = None
    sync_s: float = Field(60, gt=0)
