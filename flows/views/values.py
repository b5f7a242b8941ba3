"""A value as text: in JSON and CSV exactly, in a table for eyes."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from json.encoder import encode_basestring, encode_basestring_ascii
from typing import Any

MOST_FIXED = 1e15
"""From here on a float has no digits after the point."""


def json_text(value: Any, *, ascii_only: bool = True) -> str:
    """As JSON, without loss.

    Floats have the digits that make them again; NaN and the infinities, which JSON lacks, are the
    strings "NaN", "Infinity" and "-Infinity". Integers of any size and decimals are numbers. A
    mapping's keys are told as texts. What JSON has no form for (paths, UUIDs) is its text.
    """
    if value is None or isinstance(value, bool | int | float | Decimal):
        return _json_number(value)
    if isinstance(value, Mapping):
        items = (
            f"{_json_string(_key(key), ascii_only)}: {json_text(one, ascii_only=ascii_only)}"
            for key, one in value.items()
        )
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        return "[" + ", ".join(json_text(one, ascii_only=ascii_only) for one in value) + "]"
    return _json_string(str(value), ascii_only)


def csv_line(values: Sequence[Any]) -> str:
    """A record of RFC 4180, ended by a line feed. NULL is an empty field, an empty text is "".
    Floats as Python writes them (1e-05, nan, -inf); lists and structs as JSON."""
    return ",".join(map(_csv_field, values)) + "\n"


def cell(value: Any) -> str:
    """For a table: NULL is empty; a float has 4 digits after the point, or 6 significant ones
    where 4 would tell less."""
    if value is None:
        return ""
    if isinstance(value, float):
        return _float_cell(value)
    return value if isinstance(value, str) else _plain(value, ascii_only=False)


def _json_number(value: float | Decimal | None) -> str:
    """Or one of JSON's words."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if math.isfinite(value):
        return float.__repr__(value) if isinstance(value, float) else f"{value:f}"
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'


def _json_string(text: str, ascii_only: bool) -> str:
    if not ascii_only:
        return encode_basestring(text)
    return encode_basestring_ascii(text).replace("\x7f", "\\u007f")  # it leaves this control be


def _key(key: Any) -> str:
    return key if isinstance(key, str) else _plain(key, ascii_only=False)


def _plain(value: Any, *, ascii_only: bool) -> str:
    """JSON's text, without quotes around what is told as a string."""
    if isinstance(value, bool | int | Decimal | Mapping | list | tuple | set | frozenset):
        return json_text(value, ascii_only=ascii_only)
    return str(value)


def csv_cell(value: Any) -> str:
    """As ``csv_line`` tells it, before quotes; NULL is empty."""
    if value is None:
        return ""
    return value if isinstance(value, str) else _plain(value, ascii_only=False)


def _csv_field(value: Any) -> str:
    if value is None:
        return ""
    text = csv_cell(value)
    needs_quotes = not text or text != text.strip() or any(one in text for one in ',"\r\n')
    return '"' + text.replace('"', '""') + '"' if needs_quotes else text


def _float_cell(value: float) -> str:
    if not abs(value) < MOST_FIXED:
        return repr(value)
    fixed, significant = f"{value:.4f}", f"{value:.6g}"
    return fixed if f"{float(fixed):.6g}" == significant else significant
