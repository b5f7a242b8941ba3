"""Text that is no LaTeX."""

import re

from tasks.results.markup.visible import visible

_MEANT = re.compile(r"[\\{}$&#%_^~<>\-|\"'`\[\]]")
_WRITTEN = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "-": "{-}",
    "[": "{[}",
    "]": "{]}",
    "'": r"\textquotesingle{}",
    "`": r"\textasciigrave{}",
}
"""Hyphens and quotes stand alone: two of them would be another sign. A bracket that begins a row of
a table would be an option of the command before it."""


def as_latex(text: str) -> str:
    """What is set as the text, within a line or a table's cell, with T1 fonts and UTF-8; control
    characters are visible escapes."""
    return _MEANT.sub(lambda sign: _WRITTEN.get(sign.group(), f"\\{sign.group()}"), visible(text))
