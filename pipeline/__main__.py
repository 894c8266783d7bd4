"""`python -m pipeline` is `labelpipe`."""

from pipeline.cli import main

main()
