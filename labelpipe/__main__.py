"""`python -m labelpipe` is `labelpipe`."""

from __future__ import annotations

from labelpipe import main

main()
