"""The console script ``cir-pipeline``."""

import sys
from typing import NoReturn

from flows.doors.cli.signals import end_on_signals


def main() -> NoReturn:
    """Run the command line; expected failures become four readable lines and their exit code."""
    end_on_signals()  # before anything that takes time to import
    from cir_core.errors import CirError
    from flows.views.streams import flushed, prepare_streams, say, tell_bug
    from storage.descriptors import out_of_descriptors

    prepare_streams()
    from flows.doors.cli.app import app

    try:
        with flushed():
            app(prog_name="cir-pipeline")
    except CirError as error:
        say(f"error: {error}")
        sys.exit(error.exit_code)
    except Exception as error:  # files are opened everywhere, and libraries have types of their own
        if not (lacking := out_of_descriptors(error)):
            raise
        say(f"error: {lacking}")
        sys.exit(lacking.exit_code)
    finally:
        sys.excepthook = tell_bug  # typer has set its own
    sys.exit(0)
