"""Providers: a Request in, a Response out, and every foreign error turned into ours at this border."""

from __future__ import annotations

from pipeline.providers.chat import ChatProvider
from pipeline.providers.client import ClientOptions, ModelInfo, load_sdk
from pipeline.providers.fetch import Fetcher, FetchOptions

__all__ = ["ChatProvider", "ClientOptions", "FetchOptions", "Fetcher", "ModelInfo", "load_sdk"]
