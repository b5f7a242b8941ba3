"""Several tests at once: p-values that allow for their number, and who is tied with the best."""

from collections.abc import Mapping, Sequence

import numpy as np

LEVEL = 0.05
"""Of error, for all tests together."""


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down p-values (Scand. J. Stat. 6, 1979, 65-70): with all of them at ``LEVEL`` or
    below taken for differences, one in twenty such families has a false one among them, however the
    tests depend on each other. None is below its own p, nor above 1; the order is kept."""
    order = np.argsort(np.array(p_values), kind="stable")
    adjusted, highest = [0.0] * len(p_values), 0.0
    for step, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - step) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def tied_with_best(
    values: Sequence[float], differs: Mapping[tuple[int, int], bool]
) -> tuple[int, frozenset[int]]:
    """The place of the highest value (of equal ones the first), and the places of those that no
    test tells from it, itself among them. ``differs`` has the tests by pairs of places, the lower
    first."""
    best = max(range(len(values)), key=lambda place: (values[place], -place))
    tied = {
        place
        for place in range(len(values))
        if place == best or not differs[min(place, best), max(place, best)]
    }
    return best, frozenset(tied)
