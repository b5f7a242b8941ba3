"""Arguments that are texts."""

import os

from cir_core.errors import UsageError


def text(argument: str) -> str:
    """An argument's text, whatever the locale: Python reads arguments as the locale says, which
    makes other letters, or lone surrogates, of UTF-8 where that is another encoding. For ``parser``
    of typer; never for paths, which are bytes.

    Raises UsageError when it is not UTF-8.
    """
    try:
        return os.fsencode(argument).decode()
    except UnicodeDecodeError as error:
        raise UsageError(
            "an argument is no text",
            item=argument,
            cause=f"it is not UTF-8: {error.reason} at byte {error.start}",
            remedy="write it in UTF-8",
        ) from error
