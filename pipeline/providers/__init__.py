"""Providers: a Request in, a Response out, and every foreign error turned into ours at this border."""

from __future__ import annotations

from pipeline.providers.chat import ChatProvider
from pipeline.providers.client import ClientOptions, ModelInfo, load_sdk

__all__ = ["ChatProvider", "ClientOptions", "ModelInfo", "load_sdk"]
