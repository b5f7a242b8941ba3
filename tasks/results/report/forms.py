"""How values are told in the page's tables."""

from collections.abc import Callable, Mapping
from typing import Any

from tasks.results.wording import signed

NONE = "\N{EN DASH}"

EXACT_BELOW = 1000
"""Numbers from here on are told as whole ones."""


def told(value: Any, form: str) -> str:
    """A value in one of the forms of ``Column``; a dash for none."""
    return NONE if value is None else FORMS[form](value)


def _interval(pair: tuple[float, float]) -> str:
    return f"[{signed(100 * pair[0])}, {signed(100 * pair[1])}]"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= EXACT_BELOW else f"{value:.4g}"


FORMS: Mapping[str, Callable[[Any], str]] = {
    "text": str,
    "query": str,
    "image": str,
    "percent": lambda fraction: f"{100 * fraction:.2f}",
    "gain": lambda fraction: signed(100 * fraction),
    "interval": _interval,
    "count": lambda value: f"{value:,.0f}",
    "number": _number,
}
