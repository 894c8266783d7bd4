"""[batch] and [flex]: how a run uses the cheaper lanes of `model.lane`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pipeline.settings.section import Section


class BatchSettings(Section):
    """How the batch lane sends and collects. It is used with `model.lane = "batch"`."""

    poll_s: float = Field(
        30,
        gt=0,
        description="Seconds between two looks at a batch; more where nothing moves. Raise it to ask the server less.",
    )
    first_part: int = Field(
        50,
        ge=1,
        le=50_000,
        description="Records in the first batch, which goes alone, so that a wrong schema costs little. Lower it if "
        "your records are large.",
    )
    part_records: int = Field(
        5000,
        ge=1,
        le=50_000,
        description="Records in each other batch. Lower it to get results earlier, raise it to make fewer batches.",
    )
    enqueued_tokens: int | None = Field(
        None,
        ge=1,
        description="The most tokens that may be queued at the server at once. Unset: learned from the server's "
        "refusal. Set it to the limit of your tier.",
    )
    finish: Literal["live", "batch"] = Field(
        "live",
        description="Where repairs and later turns are asked: `live` at once, at the full price, or in the next "
        "`batch`. Set `batch` if time does not matter.",
    )
