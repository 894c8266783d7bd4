"""Parses the command line and makes one call, without logic of its own. All but typer is imported when it is needed."""

import sys

from pipeline.cli import (
    control_commands,
    export_commands,
    measure_commands,
    rehearse_commands,
    review_commands,
    run_commands,
    shard_commands,
)
from pipeline.cli.application import EXIT_CODES, EXIT_NOT_WRITTEN, app
from pipeline.terminal import open_missing_streams, put


def main() -> None:
    """Run the `labelpipe` command."""
    open_missing_streams()
    try:
        app()
    except OSError as error:
        # The parser writes its help and its errors itself; an error keeps its exit code.
        put(sys.stderr, f"labelpipe: the output could not be written: {error.strerror or error}\n")
        sys.exit(getattr(error.__context__, "exit_code", EXIT_NOT_WRITTEN))
    finally:
        # Unwritten data in a stream that nobody reads would change the exit code at the very end.
        put(sys.stdout, "")
        put(sys.stderr, "")
