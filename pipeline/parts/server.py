"""Derives facts about the server from the settings."""

import os
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.settings import Settings
from pipeline.show import AdviceContext
from pipeline.task import OMIT

REHEARSAL = "rehearsal"
#: Gives the OpenAI client another address than OpenAI's.
BASE_URL = "OPENAI_BASE_URL"


def is_openai(settings: Settings) -> bool:
    """Whether calls go to OpenAI itself, which takes parameters that other servers may refuse."""
    url = settings.model.base_url or os.environ.get(BASE_URL)
    return not url or urlsplit(url).hostname == "api.openai.com"


def is_simulated(settings: Settings) -> bool:
    """Whether the built-in endpoint answers instead of a model."""
    return settings.model.base_url == REHEARSAL


def is_azure(settings: Settings) -> bool:
    """Whether calls go to an Azure deployment."""
    return _host(settings).endswith(".azure.com")


def is_groq(settings: Settings) -> bool:
    """Whether calls go to Groq. Its flex tier has more room at the same price (Groq's guide to flex processing)."""
    return _host(settings).endswith("groq.com")


def _host(settings: Settings) -> str:
    return urlsplit(settings.model.base_url or "").hostname or ""


def holds_names(settings: Settings) -> bool:
    """Whether the server (OpenAI's or Azure's) is known to enforce a call by the function's name."""
    return is_openai(settings) or is_azure(settings)


def flex_patience_s(settings: Settings) -> float | None:
    """Return how long a call may wait for the flex tier; None if the server is not known to have a cheaper one."""
    is_known = is_openai(settings) or is_azure(settings) or is_simulated(settings)
    return settings.flex.patience_s if is_known or "patience_s" in settings.flex.model_fields_set else None


def names_function(settings: Settings) -> bool:
    """Whether the function's name forces a call, instead of "required".

    With one tool, both mean the same. Some servers silently treat a name as "auto", or refuse it (llama.cpp, LM
    Studio). So by default it is sent only to servers that are known to enforce it.
    """
    known = holds_names(settings) or is_simulated(settings)
    return settings.model.tool_choice == "forced" or (settings.model.tool_choice is None and known)


def responses_api_reason(settings: Settings) -> str:
    """Return why Chat Completions cannot serve the model or a parameter, if known; empty if it can."""
    from pipeline.providers import needs_responses

    # Other servers have only chat. A rehearsal does what the real run would do.
    known = holds_names(settings) or (is_simulated(settings) and settings.model.api == "auto")
    return needs_responses(settings.model.name, settings.model.parameters) if known else ""


def api_of(settings: Settings) -> str:
    """Return the API, chat or responses: the config's, or the one that the model needs."""
    api = settings.model.api
    if api != "auto":
        return api
    return "responses" if responses_api_reason(settings) else "chat"


def address(settings: Settings) -> str:
    """Return the server's name for people, without secrets."""
    if is_simulated(settings):
        return "the built-in endpoint (SIMULATED)"
    url = urlsplit(settings.model.base_url or os.environ.get(BASE_URL) or "https://api.openai.com")
    return url.netloc.rpartition("@")[2]


def service_tier_of(settings: Settings) -> str | None:
    """Return the service tier that each call requests, such as "flex"; None if there is none."""
    tier = settings.model.parameters.get("service_tier")
    return tier if isinstance(tier, str) else None


def missing_key(settings: Settings) -> str | None:
    """Return what to do if the key that calls need is missing; None if it is not."""
    if settings.model.base_url is not None or (settings.api_key() is not None and settings.model.auth == "key"):
        return None
    if settings.model.auth == "entra":
        return (
            'model.auth = "entra" needs the address of your Azure resource: '
            'set model.base_url = "https://RESOURCE.openai.azure.com/openai/v1/"'
        )
    name = settings.model.api_key_env
    return (
        f"{name} is not set. Put {name}=... into the environment or into .env, or set model.base_url: "
        'the address of a server of your own, or "rehearsal" to try without any'
    )


def advice_context(settings: Settings) -> AdviceContext:
    """Return what advice depends on."""
    model = settings.model
    return AdviceContext(
        base_url=model.base_url,
        api_key_env=model.api_key_env,
        tool_choice=model.tool_choice,
        parameters=tuple(model.parameters),
        is_openai=is_openai(settings),
        is_simulated=is_simulated(settings),
        names_function=names_function(settings),
        is_entra=model.auth == "entra",
    )


def refuse_parameters(settings: Settings) -> None:
    """Raise ConfigError for a parameter that the API does not take."""
    from pipeline.providers import APIS

    name_of_api = api_of(settings)
    refused = APIS[name_of_api].refused
    for name, value in settings.model.parameters.items():
        if value not in (None, OMIT) and name in refused:
            api = f'model.api = "{name_of_api}"'
            raise ConfigError(f"model.parameters.{name} cannot be sent with {api}: {refused[name]}")
