"""How the two captions of a Fashion-IQ query become one modification text."""

from cir_core.types import CaptionRule


def join_captions(first: str, second: str, rule: CaptionRule) -> str:
    """The published rule, with the captions in the given or in the other order; or, ``raw``, the
    two as they are with " and " between. Of ``both_orders`` this is the first: the given order.

    >>> join_captions("is red.", "Has a belt?", "published")
    'Is red and Has a belt'

    ``first`` and ``second`` are one caption alone, as the published training also reads them. An
    empty caption stays empty (" and ..."), as in the published code.
    """
    if rule == "raw":
        return f"{first} and {second}"
    if rule in ("first", "second"):
        return (first if rule == "first" else second).strip(".?, ").capitalize()
    if rule == "reversed":
        first, second = second, first
    return first.strip(".?, ").capitalize() + " and " + second.strip(".?, ")
