"""Text that cannot steer a terminal."""

import re

_STEERING = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # controls: escape sequences begin with one
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # of bidirectional text: they reorder it
    "\u2028\u2029"  # separators of lines and paragraphs
    "\ud800-\udfff]"  # bytes of a file name that are no text
)
_SHORT = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}


def visible(text: str, *, kept: str = "", encoding: str = "utf-8") -> str:
    r"""The text with escapes as Python writes them (``\x1b``, ``\u202e``, ``\n``) in place of
    control characters, bidirectional controls and lone surrogates, but for those ``kept``, and of
    what the encoding lacks. All other text is left as it is, a backslash too: what is shown is for
    eyes, JSON and CSV tell such texts apart."""

    def escape(match: re.Match[str]) -> str:
        character = match.group()
        if character in kept:
            return character
        return _SHORT.get(character) or character.encode("unicode_escape").decode("ascii")

    shown = _STEERING.sub(escape, text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)
