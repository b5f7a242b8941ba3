"""Whether two ways of answering the same queries differ: paired randomisation tests.

Were the two alike, each query's difference could as well have the other sign. The test asks how
often a choice of signs by chance moves the mean as far from 0 as it is.
"""

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

ROUNDS = 19_999
"""Of chance, where the signs are too many to be all tried: p is then 1 / 20,000 at least, and known
to 0.003 where it is 0.05 (two standard deviations)."""

STATES = 2**20, 2**16
"""Sums that the terms' two halves may have for all to be tried, at most: tens of milliseconds a
test. The second are sorted, and each of the first is looked up among them."""

TIED = 1e-9
"""Sums that differ by less, as a share of the largest there can be, are the same: rounding."""

BLOCK = 256
"""Rounds whose signs are held at a time: 12 MB for 6,000 queries."""


class Tested(NamedTuple):
    """``p`` is two-sided. ``rounds`` is None where all signs were tried: then p is exact."""

    p: float
    rounds: int | None


def sign_flip_tests(
    terms: Sequence[Float[np.ndarray, " query"]], *, rounds: int = ROUNDS, seed: int = 0
) -> list[Tested]:
    """A test of each of ``terms``, the summands of a mean of paired differences: how probable a sum
    at least as far from 0 is, were every sign as likely as the other.

    Queries may weigh differently (see ``macro_terms``). All signs are tried where terms repeat or
    are few, as of recall, whose terms are 0 or plus or minus one weight a category: of one category
    it is McNemar's exact test. Otherwise ``rounds`` choices are drawn, and p is (b + 1) / (m + 1)
    of b that reach the sum among m (Phipson and Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010).
    Neither the order of the queries nor which of the two is the first changes p; of no queries, and
    of no difference, it is 1.
    """
    sizes = [np.sort(np.abs(one[one != 0]))[::-1].astype(np.float64) for one in terms]
    sums = [abs(math.fsum(one)) for one in terms]
    exact = [_exact(size, total) for size, total in zip(sizes, sums, strict=True)]
    left = [place for place, p in enumerate(exact) if p is None]
    drawn = _drawn([sizes[place] for place in left], [sums[place] for place in left], rounds, seed)
    found = dict(zip(left, drawn, strict=True))
    return [
        Tested(found[place], rounds) if p is None else Tested(p, None)
        for place, p in enumerate(exact)
    ]


def macro_terms(
    category: Sequence[str], differences: Float[np.ndarray, " query"]
) -> Float[np.ndarray, " query"]:
    """The summands of the mean over categories of their means: each query's difference by the
    number of queries of its category, and of categories."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(category))}
    of_query = np.array([numbers[name] for name in category], dtype=np.int64)
    counts = np.bincount(of_query, minlength=len(numbers))
    return differences / (counts[of_query] * len(numbers))


def _exact(sizes: Float[np.ndarray, " query"], total: float) -> float | None:
    """None where there are too many sums to try them all."""
    values, counts = np.unique(sizes, return_counts=True)
    halves = _halves([(float(v), int(n)) for v, n in zip(values, counts, strict=True)])
    if halves is None:
        return None
    whole = float(sizes.sum())
    reached = total - TIED * whole
    if reached <= 0:
        return 1.0
    (sums, shares), (others, weights) = (_sums(half) for half in halves)
    order = np.argsort(others)
    at_least = np.append(np.cumsum(weights[order][::-1])[::-1], 0.0)
    places = np.searchsorted(others[order], reached - sums, side="left")
    p = 2 * float(np.sum(shares * at_least[places]))  # both signs of the whole are as likely
    return min(1.0, max(p, float(np.finfo(float).tiny)))  # never 0, however many queries


def _halves(
    groups: list[tuple[float, int]],
) -> tuple[list[tuple[float, int]], list[tuple[float, int]]] | None:
    """The terms, by value and number, in two halves of few sums each; None where there are more
    than ``STATES``."""
    halves: tuple[list[tuple[float, int]], list[tuple[float, int]]] = ([], [])
    states = [1, 1]
    for value, count in sorted(groups, key=lambda group: -group[1]):
        fits = [states[half] * (count + 1) <= STATES[half] for half in (0, 1)]
        if not any(fits):
            return None
        half = int(fits[1] and (not fits[0] or states[1] < states[0]))
        states[half] *= count + 1
        halves[half].append((value, count))
    return halves


def _sums(
    groups: list[tuple[float, int]],
) -> tuple[Float[np.ndarray, " state"], Float[np.ndarray, " state"]]:
    """All that terms with signs by chance may sum to, and how probable each is."""
    sums, shares = np.zeros(1), np.ones(1)
    for value, count in groups:
        steps = value * (2.0 * np.arange(count + 1) - count)
        sums = np.add.outer(sums, steps).ravel()
        shares = np.multiply.outer(shares, _binomial(count)).ravel()
    return sums, shares


@lru_cache(maxsize=1024)
def _binomial(count: int) -> Float[np.ndarray, " successes"]:
    """The probabilities of 0 to ``count`` heads, each rounded once."""
    ways, whole, shares = 1, 2**count, []
    for heads in range(count + 1):
        shares.append(ways / whole)
        ways = ways * (count - heads) // (heads + 1)
    return np.array(shares)


def _drawn(
    sizes: Sequence[Float[np.ndarray, " query"]],
    sums: Sequence[float],
    rounds: int,
    seed: int,
) -> list[float]:
    """p by chance of each; the same signs serve all."""
    longest = max(map(len, sizes), default=0)
    terms = np.zeros((longest, len(sizes)))
    for place, one in enumerate(sizes):
        terms[: len(one), place] = one
    reached = np.array(sums) - TIED * terms.sum(axis=0)
    beyond = np.zeros(len(sizes), dtype=np.int64)
    for signs in _signs(rounds, longest, seed):
        beyond += (np.abs(signs @ terms) >= reached).sum(axis=0)
    return [float(one) for one in (beyond + 1) / (rounds + 1)]


def _signs(rounds: int, terms: int, seed: int) -> Iterator[Float[np.ndarray, "round term"]]:
    """Plus and minus one, block by block; those of a term are the same however many follow it."""
    for start in range(0, rounds if terms else 0, BLOCK):
        random = np.random.default_rng([seed, start])
        drawn = random.integers(256, size=(terms, BLOCK // 8), dtype=np.uint8)
        bits = np.unpackbits(drawn, axis=1)[:, : min(BLOCK, rounds - start)]
        yield 2.0 * bits.T - 1.0
