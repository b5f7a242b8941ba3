"""Texts of SQL, read by DuckDB's tokens: where their statements end."""

from collections.abc import Iterator


def parts_of(text: str) -> Iterator[str]:
    """Of a text, each as far as a semicolon that is part of no text, name or comment; and what
    follows the last."""
    import duckdb

    content, begin = text.encode(), 0  # DuckDB counts bytes
    for start, kind in duckdb.tokenize(text):
        if kind != duckdb.token_type.comment and content[start:][:1] == b";":
            yield content[begin : start + 1].decode().strip()
            begin = start + 1
    yield content[begin:].decode().strip()


def is_ended(text: str) -> bool:
    """Whether a semicolon ends it, which is part of no text, name or comment."""
    return open_ended(text) != text


def open_ended(statement: str) -> str:
    """Without the semicolons at its end, and what follows them, so that it can stand in
    parentheses."""
    import duckdb

    text = statement.encode()
    end = len(text)
    for start, kind in reversed(duckdb.tokenize(statement)):
        if kind != duckdb.token_type.comment and text[start:][:1] != b";":
            break
        end = start if text[start:][:1] == b";" else end
    return text[:end].decode()
