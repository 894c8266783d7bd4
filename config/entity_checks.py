"""What config/entities.toml asks of names beside their schema."""

from __future__ import annotations

from typing import Any


def names_stand_in_the_text(label: dict[str, Any], record: Any) -> str | None:
    """What is wrong, in words for the model; None for nothing."""
    text = record.fields["text"]
    strange = [entity["name"] for entity in label["entities"] if not entity["name"] or entity["name"] not in text]
    if strange:
        return f"{', '.join(map(repr, strange))}: not in the notice. Copy each name as it stands there, or leave it out"
    return None
