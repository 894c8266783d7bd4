"""Tokens of Microsoft Entra ID in the place of a key, for Azure: azure-identity finds the identity and renews them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from pipeline.errors import CredentialsError, MissingExtraError, UnavailableError

#: What a token is for.
SCOPE = "https://ai.azure.com/.default"
#: So much of what went wrong is told: a chain of credentials says it of each of them.
MOST_CHARS = 300


@asynccontextmanager
async def entra_tokens() -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """What gives the token that is good now: of the environment's identity, a managed one, or that of `az login`.

    It raises CredentialsError where there is no identity or it is refused, UnavailableError where nobody answers.
    Raises MissingExtraError.
    """
    try:
        from azure.core.exceptions import AzureError, ClientAuthenticationError
        from azure.identity import CredentialUnavailableError
        from azure.identity.aio import DefaultAzureCredential, get_bearer_token_provider
    except ImportError as error:
        raise MissingExtraError('model.auth = "entra"', "azure") from error

    async with DefaultAzureCredential() as credential:
        renewed, known = get_bearer_token_provider(credential, SCOPE), False

        async def token() -> str:
            nonlocal known
            try:
                found = await renewed()
            except AzureError as error:
                # An identity that was there once and is away comes back: an outage, as where nobody answers.
                is_refused = isinstance(error, ClientAuthenticationError)
                is_away = not is_refused or (known and isinstance(error, CredentialUnavailableError))
                kind = UnavailableError if is_away else CredentialsError
                # From None: its own causes hold requests, and these the secret of the identity.
                raise kind(f"no token from Entra ID: {' '.join(str(error).split())[:MOST_CHARS]}") from None
            known = True
            return found

        yield token
