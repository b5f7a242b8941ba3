"""How the two captions of a Fashion-IQ query become one modification text."""

from typing import Literal

CaptionRule = Literal["published", "reversed"]


def join_captions(first: str, second: str, rule: CaptionRule) -> str:
    """The published rule, with the captions in the given or in the other order.

    >>> join_captions("is red.", "Has a belt?", "published")
    'Is red and Has a belt'

    An empty caption stays empty (" and ..."), as in the published code.
    """
    if rule == "reversed":
        first, second = second, first
    return first.strip(".?, ").capitalize() + " and " + second.strip(".?, ")
