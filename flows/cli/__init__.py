"""The console script ``cir-pipeline``."""

import sys
from typing import NoReturn

from flows.cli.signals import end_on_signals


def main() -> NoReturn:
    """Run the command line; expected failures become four readable lines and their exit code."""
    end_on_signals()  # before anything that takes time to import
    from cir_core.errors import CirError
    from flows.cli.app import app
    from flows.cli.talk import say

    try:
        app()
    except CirError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    sys.exit(0)
