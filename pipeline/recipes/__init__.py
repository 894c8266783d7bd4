"""For callbacks of your own: `once` lets what one writes into a database be there exactly once."""

from pipeline.recipes.once import TABLE, once, once_async, prepare, prepare_async

__all__ = ["TABLE", "once", "once_async", "prepare", "prepare_async"]
