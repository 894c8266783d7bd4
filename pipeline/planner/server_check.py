"""Asks the server before a run: which models it has, which API they need, and how it handles calls."""

from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import (
    AnswerError,
    CallError,
    CredentialsError,
    InvalidAnswerError,
    LabelpipeError,
    RecordRefusedError,
    RefusalError,
    RenderError,
    RequestShapeError,
    StoreError,
    TruncatedError,
    UnavailableError,
    UnknownRefusalError,
)
from pipeline.facts import Check
from pipeline.parts import (
    FORM_NOTES,
    FORMS,
    address,
    advice_context,
    api_of,
    fingerprint_of,
    has_card,
    is_openai,
    missing_key,
    open_provider,
    responses_api_reason,
    takes_single_call,
    task_of,
)
from pipeline.planner.lanes import batch_checks
from pipeline.records import BY_SCHEMA, JSON, UNUSABLE_CALL, Provider, Record
from pipeline.settings import Settings
from pipeline.show import advise
from pipeline.store import RunDir

#: The statuses of servers that do not describe their models.
_NO_MODELS_PAGE = frozenset({400, 403, 404, 405, 406, 410, 501})
UNSURE = "calls may still work, because not every server describes its models"
#: The prompt for an unknown server. No model would call a function for it unless forced to.
PROBE_PROMPT = "Say hello."
_NOBODY = Record(source="check", ordinal=0, key="check", fields={}, line=1, digest=0)
#: The names of the forms for users.
_NAMES = {"forced": "name", "required": '"required"', BY_SCHEMA: "schema"}
#: Statuses by which a server may refuse one form of a call, and not all of them.
_NO_TO_A_FORM = frozenset({404, 500, 501})
#: The most characters of a reason in the line. The card has the whole reason.
_MOST_CHARS = 60


class FormResult(NamedTuple):
    """Whether the server follows a form of a call; None if the answer does not show it.

    `detail` is what came instead, `refused` is whether the server refused the call, and `tokens` is what it used.
    """

    follows: bool | None
    detail: str = ""
    refused: bool = False
    tokens: int = 0


def api_checks(settings: Settings) -> list[Check]:
    """Report which API is called if the config leaves it open, or that the other one is needed."""
    why = responses_api_reason(settings)
    if settings.model.api == "auto":
        return [Check("api", True, f"responses: {why}" if why else "chat: nothing here needs the Responses API")]
    if not why or settings.model.api == "responses":
        return []
    # A deployment at Azure may have the name of any model.
    return [Check("api", False if is_openai(settings) else None, f'{why}; set model.api = "responses" or "auto"')]


async def model_checks(settings: Settings, *, online: bool) -> list[Check]:
    """Check whether the models answer to the key; without `online`, only whether a required key is set."""
    if not online:
        problem = missing_key(settings)
        return [] if problem is None else [Check("model", None, problem, True)]
    models = dict.fromkeys([settings.model.name, *(one.model for one in settings.quality.voters if one.model)])
    return [*[await _one_model(settings, name) for name in models], *await batch_checks(settings)]


async def _one_model(settings: Settings, name: str) -> Check:
    try:
        async with AsyncExitStack() as stack:
            provider = await open_provider(settings, stack)
            info = await provider.model(name)
    except LabelpipeError as error:
        # Many compatible servers have no list of models, or do not publish it: only a refused key is certain.
        status = error.status if isinstance(error, CallError) else None
        unsure = status in _NO_MODELS_PAGE and settings.model.base_url is not None
        lines = [str(error), UNSURE if unsure else ""]
        lines.append(advise(advice_context(settings), [str(error)]) or "")
        return Check("model", None if unsure else False, "\n".join(filter(None, lines)))
    ends = f"; it is shut down on {info.shutdown_date}" if info.shutdown_date else ""
    return Check("model", None if ends else True, f"{info.id} is available to this key{ends}")


# -- the server card ---------------------------------------------------------------------------------------------------


async def server_checks(settings: Settings) -> list[Check]:
    """Test how an unknown server handles calls, with one call per form, and save the result as a card for the run.

    A server that does not list its models is not called: its answers would show too little.
    """
    if not has_card(settings):
        return []
    forms = ("forced", "required", BY_SCHEMA) if takes_single_call(settings) else ("required",)
    results: dict[str, FormResult] = {}
    why = ""
    try:
        async with AsyncExitStack() as stack:
            provider = await open_provider(_probe_settings(settings, "required"), stack)
            why = "it does not list its models: "
            await provider.has_models()
            why = ""
            for form in forms:
                try:
                    results[form] = await _try_form(provider, settings, form)
                except CallError as error:
                    if not any(one.follows for one in results.values()):
                        raise
                    results[form] = FormResult(None, str(error))  # it answers calls, and another form works
    except RenderError:
        return []  # the schema depends on the record
    except LabelpipeError as error:
        return [Check("server", None, f"{address(settings)}: it is unknown how it handles calls: {why}{error}")]
    if all(one.refused for one in results.values()) and settings.model.tool_choice is None:
        messages = [one.detail for one in results.values()]
        return [
            Check("server", False, "\n".join(filter(None, [messages[0], advise(advice_context(settings), messages)])))
        ]
    card = _card(settings, results)
    with suppress(StoreError, OSError):  # a run works without it
        RunDir(Path(settings.output.dir)).write_server(card)
    return [_card_check(settings, results, card)]


def _probe_settings(settings: Settings, form: str) -> Settings:
    """Return the settings for a call without a record, with the task's own function and the user's own parameters."""
    bare = dict.fromkeys(("system", "examples_file", "examples_k"))
    task = settings.task.model_copy(update={**bare, "prompt": PROBE_PROMPT, "examples": [], "validators": []})
    model = settings.model.model_copy(update={"tool_choice": form})
    return settings.model_copy(update={"task": task, "model": model})


async def _try_form(provider: Provider, settings: Settings, form: str) -> FormResult:
    """Make a call in this form and return the result. Raises a CallError that is not about the form."""
    task = task_of(_probe_settings(settings, form))
    try:
        response = await provider(task.render(_NOBODY))
    except CallError as error:
        if not _is_about_form(error):
            raise
        return FormResult(False, str(error), refused=True)
    answer, tokens = response.answer, response.usage.total
    if UNUSABLE_CALL in answer.ending:  # the model did not write a call, and the server noticed
        return FormResult(True, tokens=tokens)
    try:
        task.parse_calls(answer, _NOBODY)
    except (TruncatedError, RefusalError) as error:
        return FormResult(None, str(error), tokens=tokens)
    except InvalidAnswerError as error:
        # A call with an invalid label is still a call. Content that does not fit shows that the schema was not
        # enforced.
        is_held = error.code == "invalid_label" and form != BY_SCHEMA
        return FormResult(is_held, "" if is_held else str(error), tokens=tokens)
    except AnswerError:
        pass  # from the user's own code, which needs a real record
    return FormResult(True, tokens=tokens)


def _is_about_form(error: CallError) -> bool:
    if isinstance(error, RequestShapeError | RecordRefusedError | UnknownRefusalError):
        return True
    return isinstance(error, CredentialsError | UnavailableError) and error.status in _NO_TO_A_FORM


def _card(settings: Settings, results: dict[str, FormResult]) -> dict[str, JSON]:
    form = next((one for one in FORMS if one in results and results[one].follows), None)
    return {
        "fingerprint": fingerprint_of(settings),
        "server": address(settings),
        "model": settings.model.name,
        "api": api_of(settings),
        "checked_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "has": {name: {"held": one.follows, "told": one.detail} for name, one in results.items()},
        "form": form,
        "worked_around": [FORM_NOTES[form]] if form in FORM_NOTES else [],
        "calls": len(results),
        "tokens": sum(one.tokens for one in results.values()),
    }


def _card_check(settings: Settings, results: dict[str, FormResult], card: dict[str, JSON]) -> Check:
    """Return a check with the card in one line."""
    forms = " and by ".join(_NAMES[name] for name, one in results.items() if one.follows)
    others = [f"not by {_NAMES[name]} ({_why(one)})" for name, one in results.items() if not one.follows]
    text = f"forces a call by {forms}" if forms else "does not force calls, so answers in words are requested again"
    own = settings.model.tool_choice
    ok = True if forms else None
    if own in results and not results[own].follows and forms:
        ok, others = None, [*others, f"and model.tool_choice is {own!r}: remove it"]
    elif own is None:
        others += [f"worked around: {one}" for one in card["worked_around"]]
    return Check("server", ok, f"{card['server']}: {'; '.join([text, *others])}", card=card)


def _why(one: FormResult) -> str:
    """Describe briefly why a form is not followed; the card has the details."""
    if one.follows is None:
        return "unclear"
    return f"{one.detail[:_MOST_CHARS]}..." if one.refused else "in words"
