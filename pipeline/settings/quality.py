"""The table [quality]: votes, and gold in the run."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from pipeline.settings import checks
from pipeline.settings.checks import Takes
from pipeline.settings.fields import PriceSettings
from pipeline.settings.section import Json, Section, Text, Texts

#: More votes than anybody pays for. An even number may end in a tie.
MOST_VOTES = 15


class VoterSettings(Section):
    """One voter beside the run's own model and prompt. Unset values are the run's own."""

    model: Text | None = None
    system: str | None = None
    prompt: Text | None = None
    parameters: Annotated[dict[str, Json], BeforeValidator(checks.as_plain), Takes("a table of what is sent along")] = (
        Field(default_factory=dict)
    )
    price: PriceSettings | None = None

    @model_validator(mode="after")
    def _differs(self) -> VoterSettings:
        if self.model is None and self.system is None and self.prompt is None and not self.parameters:
            checks.refuse(
                "this voter is the run's own model and prompt again: set its model, system, prompt, or parameters, or "
                "use quality.votes for several answers to the same request"
            )
        return self


class QualitySettings(Section):
    """Votes, and gold in the run."""

    votes: int | None = Field(None, ge=1, le=MOST_VOTES)
    voters: Annotated[list[VoterSettings], BeforeValidator(checks.as_plain), Takes("tables [[quality.voters]]")] = (
        Field(default_factory=list)
    )
    vote_on: Annotated[Texts, Takes('a list of label fields, like ["topic"]')] | None = None
    review_below: float = Field(0.6, ge=0, le=1)

    gold: Text | None = None
    gold_column: Text | None = None
    every: int = Field(50, ge=1)
    stop_below: float | None = Field(None, ge=0, lt=1)

    @property
    def size(self) -> int:
        """The highest number of votes that a record can have."""
        return self.votes or 1 + len(self.voters)

    @property
    def fewest(self) -> int:
        """The smallest number of votes that can decide a label."""
        return self.size // 2 + 1

    @model_validator(mode="after")
    def _votes_of_voters(self) -> QualitySettings:
        if self.gold is None and (self.gold_column is not None or self.stop_below):
            checks.refuse(
                "quality.gold is not set, so no gold record is asked: name the file, or remove the other keys of gold"
            )
        if self.voters and self.votes not in (None, 1 + len(self.voters)):
            checks.refuse(
                f"quality.votes is {self.votes}, and there are {1 + len(self.voters)} voters, the run's own model "
                "among them: take quality.votes out"
            )
        return self
