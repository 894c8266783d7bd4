"""Gets Microsoft Entra ID tokens in place of a key, for Azure: azure-identity finds the identity and renews them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from pipeline.errors import CredentialsError, MissingExtraError, UnavailableError

#: The scope of a token.
SCOPE = "https://ai.azure.com/.default"
#: The most characters of an error: a chain of credentials reports one for each of them.
MOST_CHARS = 300


@asynccontextmanager
async def entra_tokens() -> AsyncIterator[Callable[[], Awaitable[str]]]:
    """Yield a function that returns the current token of the environment's identity, a managed one, or `az login`.

    The function raises CredentialsError if there is no identity or it is refused, and UnavailableError if no server
    answers. Raises MissingExtraError.
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
                # An identity that worked before and is gone will return: an outage, as if no server answers.
                is_refused = isinstance(error, ClientAuthenticationError)
                is_away = not is_refused or (known and isinstance(error, CredentialUnavailableError))
                kind = UnavailableError if is_away else CredentialsError
                # From None: its causes contain requests, and these contain the identity's secret.
                raise kind(f"no token from Entra ID: {' '.join(str(error).split())[:MOST_CHARS]}") from None
            known = True
            return found

        yield token
