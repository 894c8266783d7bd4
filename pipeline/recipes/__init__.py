"""Helps callbacks to write to a database exactly once."""

from pipeline.recipes.once import TABLE, once, once_async, prepare, prepare_async

__all__ = ["TABLE", "once", "once_async", "prepare", "prepare_async"]
