"""scikit-learn and scipy, with which figures are compared. Each is imported at its first use.

Importing them takes seconds of CPU, and every process that runs tests collects all of them.
"""

from __future__ import annotations

import importlib
from typing import Any


class _Later:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # pytest asks each object of a module whether it is a test or a mock
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)


isotonic = _Later("sklearn.isotonic")
metrics = _Later("sklearn.metrics")
optimize = _Later("scipy.optimize")
preprocessing = _Later("sklearn.preprocessing")
stats = _Later("scipy.stats")
