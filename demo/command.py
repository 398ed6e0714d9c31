"""The end of the recipe's commands: errors that have a way out are one line, progress goes to stderr."""

import sys
from collections.abc import Callable

from rich.console import Console

from stages.core.errors import TriptychError

STDERR = Console(stderr=True)
"""Console that progress is drawn on, so that stdout holds results only."""


def run(main: Callable[[], None], program: str) -> None:
    """Run a command; exit with the status of the error that ended it, 130 after Ctrl-C."""
    try:
        main()
    except TriptychError as error:
        sys.stderr.write(f"{program}: error: {error.message}\n")
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
