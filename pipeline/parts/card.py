"""The server card: what `check` has found a server to do with calls, kept in the run folder for the run.

A run works without one. It changes how a call is asked for and nothing of what is asked: a request keeps its digest,
and an answer that was kept is read as it was. So a card may come and go between two sessions.
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

#: The forms in which a call is asked for, the one that serves best first.
FORMS = ("required", "forced", BY_SCHEMA)
#: What a run is told of a form; of "required", which is sent without a card too, there is nothing to tell.
FORM_NOTES = {
    "forced": "the function is named in each call",
    BY_SCHEMA: "a call goes out as its schema (response_format)",
}


def fingerprint_of(settings: Settings) -> str:
    """Of whom a card is: the address, the model and the API."""
    model = settings.model
    url = model.base_url or os.environ.get(BASE_URL) or ""
    identity = codec.dumps([url.rstrip("/"), model.name, api_of(settings)])
    return hashlib.sha256(identity).hexdigest()


def has_card(settings: Settings) -> bool:
    """Whether there is anything to find out about the server: OpenAI and Azure are known, as the built-in one is."""
    return not (holds_names(settings) or is_simulated(settings) or settings.task.call == "any")


def takes_single_call(settings: Settings) -> bool:
    """Whether an answer is to be one call, so that it may be asked for by the function's name or by its schema."""
    task = settings.task
    is_one = task.call == "one" and task.rows != "calls" and task.max_turns == 1
    return is_one and len(task.tools or [None]) == 1


def refuse_schema(settings: Settings) -> None:
    """Raise ConfigError where calls cannot go out as a schema: of one answer."""
    if settings.model.tool_choice != BY_SCHEMA:
        return
    if not takes_single_call(settings):
        raise ConfigError(
            'model.tool_choice = "schema" asks for one answer by one schema, so it does not go with several tools, '
            "task.call, task.max_turns or task.rows of calls: set another one"
        )


def card_of(settings: Settings) -> Mapping[str, JSON] | None:
    """The card in the run folder; None where there is none, or it is about another server, model or API."""
    try:
        card = codec.loads(RunDir(Path(settings.output.dir)).server.read_bytes())
    except (OSError, codec.JSONDecodeError):
        return None
    is_ours = isinstance(card, Mapping) and card.get("fingerprint") == fingerprint_of(settings)
    return card if is_ours and has_card(settings) else None


def form_of(settings: Settings) -> str | None:
    """How the card says that a call is asked for; None where there is none, or the config says so itself."""
    card = card_of(settings) if settings.model.tool_choice is None and takes_single_call(settings) else None
    form = None if card is None else card.get("form")
    return str(form) if form in FORMS else None


def with_call_form(settings: Settings, request: Request) -> Request:
    """The request in the form in which its call is asked for."""
    from pipeline.providers import asked_as

    return asked_as(request, form_of(settings) if request.model == settings.model.name else None)


def describe_card(settings: Settings) -> str:
    """What the card changes in the calls of a run; empty where it changes nothing."""
    return FORM_NOTES.get(form_of(settings) or "", "")
