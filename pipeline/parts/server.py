"""What the settings say of the server that is called."""

import os
from urllib.parse import urlsplit

from pipeline.errors import ConfigError
from pipeline.settings import Settings
from pipeline.show import AdviceContext
from pipeline.task import OMIT

REHEARSAL = "rehearsal"
#: Where the OpenAI client is told of another address than OpenAI's.
BASE_URL = "OPENAI_BASE_URL"


def is_openai(settings: Settings) -> bool:
    """Whether OpenAI's own API is called: it takes parameters that other servers may refuse."""
    url = settings.model.base_url or os.environ.get(BASE_URL)
    return not url or urlsplit(url).hostname == "api.openai.com"


def is_simulated(settings: Settings) -> bool:
    """Whether the built-in endpoint answers instead of a model."""
    return settings.model.base_url == REHEARSAL


def is_azure(settings: Settings) -> bool:
    """Whether a deployment at Azure is called."""
    return _host(settings).endswith(".azure.com")


def is_groq(settings: Settings) -> bool:
    """Whether Groq is called: its flex tier has more room and the same price (its guide to flex processing)."""
    return _host(settings).endswith("groq.com")


def _host(settings: Settings) -> str:
    return urlsplit(settings.model.base_url or "").hostname or ""


def holds_names(settings: Settings) -> bool:
    """Whether the server is known to hold the model to a call by the function's name: OpenAI's and Azure's are."""
    return is_openai(settings) or is_azure(settings)


def flex_patience_s(settings: Settings) -> float | None:
    """How long a call may wait for the flex tier; None where nobody says that the server has one that costs less."""
    is_known = is_openai(settings) or is_azure(settings) or is_simulated(settings)
    return settings.flex.patience_s if is_known or "patience_s" in settings.flex.model_fields_set else None


def names_function(settings: Settings) -> bool:
    """Whether a call is forced by the function's name, not by "required".

    With one tool both say the same. Some servers take a name for "auto" in silence or refuse it (llama.cpp, LM Studio),
    so that without a word of the user's it is sent where it is known to be held.
    """
    known = holds_names(settings) or is_simulated(settings)
    return settings.model.tool_choice == "forced" or (settings.model.tool_choice is None and known)


def responses_api_reason(settings: Settings) -> str:
    """Why Chat Completions cannot serve the model or a parameter, as far as known; empty where it can."""
    from pipeline.providers import needs_responses

    # Elsewhere chat is what there is. A rehearsal does as the run would that it stands for.
    known = holds_names(settings) or (is_simulated(settings) and settings.model.api == "auto")
    return needs_responses(settings.model.name, settings.model.parameters) if known else ""


def api_of(settings: Settings) -> str:
    """The API that is called, chat or responses: the config's, or the one that the model needs."""
    api = settings.model.api
    if api != "auto":
        return api
    return "responses" if responses_api_reason(settings) else "chat"


def address(settings: Settings) -> str:
    """Who is called, for a person: without what may be a secret."""
    if is_simulated(settings):
        return "the built-in endpoint (SIMULATED)"
    url = urlsplit(settings.model.base_url or os.environ.get(BASE_URL) or "https://api.openai.com")
    return url.netloc.rpartition("@")[2]


def service_tier_of(settings: Settings) -> str | None:
    """The service tier that each call asks for, like "flex"; None where it asks for none."""
    tier = settings.model.parameters.get("service_tier")
    return tier if isinstance(tier, str) else None


def missing_key(settings: Settings) -> str | None:
    """What to do where no call can be made for want of a key; None where one can."""
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
    """What advice depends on."""
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
    """Raise ConfigError for a parameter that the API of the settings does not take."""
    from pipeline.providers import APIS

    name_of_api = api_of(settings)
    refused = APIS[name_of_api].refused
    for name, value in settings.model.parameters.items():
        if value not in (None, OMIT) and name in refused:
            api = f'model.api = "{name_of_api}"'
            raise ConfigError(f"model.parameters.{name} cannot be sent with {api}: {refused[name]}")
