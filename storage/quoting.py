"""Names and texts as SQL writes them."""


def literal(words: str) -> str:
    """A text."""
    return "'" + words.replace("'", "''") + "'"


def quoted(name: str) -> str:
    """A name."""
    return '"' + name.replace('"', '""') + '"'
