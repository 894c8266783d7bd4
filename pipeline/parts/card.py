"""Reads the server card: what `check` found out about how a server handles calls, saved in the run folder.

A run works without one. The card changes how a call is requested, but not what is asked: a request keeps its digest,
and a saved answer is read as before. So a card may appear or disappear between two sessions.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from pipeline import codec
from pipeline.errors import ConfigError
from pipeline.parts.server import BASE_URL, api_of, holds_names, is_simulated
from pipeline.records import BY_SCHEMA, JSON, Request
from pipeline.settings import Settings
from pipeline.store import RunDir

#: The forms in which a call is requested, best first.
FORMS = ("required", "forced", BY_SCHEMA)
#: What the run reports about a form. "required" needs no report, because it is also sent without a card.
FORM_NOTES = {
    "forced": "the function is named in each call",
    BY_SCHEMA: "a call goes out as its schema (response_format)",
}


def fingerprint_of(settings: Settings) -> str:
    """Return a hash of the address, the model, and the API."""
    model = settings.model
    url = model.base_url or os.environ.get(BASE_URL) or ""
    identity = codec.dumps([url.rstrip("/"), model.name, api_of(settings)])
    return hashlib.sha256(identity).hexdigest()


def has_card(settings: Settings) -> bool:
    """Whether the server may need a card. OpenAI, Azure, and the built-in endpoint are known."""
    return not (holds_names(settings) or is_simulated(settings) or settings.task.call == "any")


def takes_single_call(settings: Settings) -> bool:
    """Whether an answer must be one call, so that it may be requested by the function's name or by its schema."""
    task = settings.task
    is_one = task.call == "one" and task.rows != "calls" and task.max_turns == 1
    return is_one and len(task.tools or [None]) == 1


def refuse_schema(settings: Settings) -> None:
    """Raise ConfigError if calls cannot be sent as a schema of one answer."""
    if settings.model.tool_choice != BY_SCHEMA:
        return
    if not takes_single_call(settings):
        raise ConfigError(
            'model.tool_choice = "schema" asks for one answer by one schema, so it does not go with several tools, '
            "task.call, task.max_turns or task.rows of calls: set another one"
        )


def card_of(settings: Settings) -> Mapping[str, JSON] | None:
    """Return the card in the run folder; None without one, or if it is for another server, model, or API."""
    try:
        card = codec.loads(RunDir(Path(settings.output.dir)).server.read_bytes())
    except (OSError, codec.JSONDecodeError):
        return None
    is_ours = isinstance(card, Mapping) and card.get("fingerprint") == fingerprint_of(settings)
    return card if is_ours and has_card(settings) else None


def form_of(settings: Settings) -> str | None:
    """Return the card's form of requesting a call; None if there is none, or if the config sets it."""
    card = card_of(settings) if settings.model.tool_choice is None and takes_single_call(settings) else None
    form = None if card is None else card.get("form")
    return str(form) if form in FORMS else None


def with_call_form(settings: Settings, request: Request) -> Request:
    """Return the request in the form that the card chooses."""
    from pipeline.providers import asked_as

    return asked_as(request, form_of(settings) if request.model == settings.model.name else None)


def describe_card(settings: Settings) -> str:
    """Return what the card changes in the calls of a run; empty if nothing."""
    return FORM_NOTES.get(form_of(settings) or "", "")
