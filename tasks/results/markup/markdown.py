"""Text that is no Markdown and no HTML."""

import re

from tasks.results.markup.visible import visible

_MEANT = re.compile(r"[\\`*_{}\[\]<>&|~#$]")


def as_markdown(text: str) -> str:
    """What renders as the text, within a line or a table's cell: signs of Markdown and HTML are
    told by their numbers, which every dialect takes for themselves; control characters are visible
    escapes."""
    return _MEANT.sub(lambda sign: f"&#{ord(sign.group())};", visible(text))
