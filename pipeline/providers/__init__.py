"""Providers: take a Request, return a Response, and translate every foreign error into a CallError."""

from pipeline.providers.batches import NO_LIST, BatchApi, BatchFacts, LineEnd
from pipeline.providers.chat import CHAT
from pipeline.providers.client import ClientOptions, load_sdk
from pipeline.providers.entra import entra_tokens
from pipeline.providers.fetch import Fetcher, FetchOptions
from pipeline.providers.forms import asked_as
from pipeline.providers.function import FunctionProvider
from pipeline.providers.http import HttpProvider
from pipeline.providers.responses import RESPONSES, needs_responses

#: The APIs by their names in the config.
APIS = {"chat": CHAT, "responses": RESPONSES}
