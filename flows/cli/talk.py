"""Talk goes to stderr; stdout is for data."""

import sys


def say(text: str) -> None:
    print(text, file=sys.stderr)
