"""The label of config/products.toml: what the model fills in, and what is made of it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, computed_field, field_validator


class Product(BaseModel):
    """Set the attributes of the product."""

    category: Literal["kitchen", "lighting", "bags", "tableware", "tools", "garden"]
    material: str | None = Field(description="The main material, in one to three words.", max_length=60)
    colour: str | None = Field(description="The colour of the thing itself, in one word if it will do.", max_length=60)
    volume_l: float | None = Field(description="What it holds, in litres: 300 ml is 0.3.", ge=0, le=500)
    pieces: int = Field(description="How many things are in the pack; 1 where nothing else is said.", ge=1, le=100)
    care: Literal["dishwasher", "machine", "hand"] | None = Field(description="How it is to be washed.")

    @field_validator("material", "colour")
    @classmethod
    def _tidy(cls, text: str | None) -> str | None:
        return text.strip().lower() or None if text is not None else None

    @computed_field
    def complete(self) -> bool:
        """Whether the shop text left nothing open that filters need: a column that no model is asked for."""
        return self.material is not None and self.colour is not None
