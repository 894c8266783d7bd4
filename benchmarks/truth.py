"""The one task of all benchmarks: what a record looks like, and which label is the right one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

LABELS = ("positive", "negative", "neutral")
SYSTEM = "You help to make training data."
PROMPT = "Label this text: "
MODEL = "bench-model"
#: Every prompt holds the record's number in this form.
NUMBER = re.compile(rb"Review (\d{7}):")

_FUNCTION = {
    "name": "label_record",
    "description": "Give the label of the text.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"label": {"type": "string", "enum": list(LABELS)}},
        "required": ["label"],
        "additionalProperties": False,
    },
}


def label_of(number: int) -> str:
    """The right label: any function that a wrong assignment would not meet by chance."""
    return LABELS[(number * 2654435761 >> 7) % len(LABELS)]


def text_of(number: int) -> str:
    """The text of a record, about 90 characters."""
    return f'Review {number:07d}: bought it in May, used it daily, and here is what I think, "honestly".'


def write_input(path: Path, records: int) -> Path:
    """A JSONL file of so many records."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(records):
            file.write(json.dumps({"id": f"r{number}", "text": text_of(number)}) + "\n")
    return path


def body_of(text: str) -> dict[str, Any]:
    """The request that every contender sends: one function with one enum, forced."""
    return {
        "model": MODEL,
        "messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPT + text}],
        "tools": [{"type": "function", "function": _FUNCTION}],
        "tool_choice": {"type": "function", "function": {"name": "label_record"}},
    }
