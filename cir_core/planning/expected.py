"""How many pairs stage 1 will choose, before it has."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from cir_core.ports import Load
from cir_core.search.candidates import NONE_REMOVED

ALMOST_CERTAIN = 1 - 1e-12
"""Of a chance: its logarithm can be taken back."""


@dataclass(frozen=True)
class Pool:
    """What is asked of one gallery of so many ``images``; they are ``gallery``, some distinct
    pictures.

    Each text, of so many tokens, has ``candidates`` of the images, any as likely as another but for
    the one that is ``removed`` (or NONE_REMOVED). Beside them, texts (their places in ``lengths``)
    ask for ``members`` of their subset.
    """

    gallery: Int[np.ndarray, " picture"]
    images: int
    lengths: Int[np.ndarray, " text"]
    removed: Int[np.ndarray, " text"]
    candidates: Shaped[np.ndarray, " text"]
    asking: Int[np.ndarray, " member"]
    members: Int[np.ndarray, " member"]


@dataclass(frozen=True)
class Expected:
    """Pairs to be scored, and for each picture the chance that it has any."""

    load: Load
    seen: Float[np.ndarray, " image"]

    def of_images(self, share: Float[np.ndarray, " image"]) -> "Expected":
        """So much of what each image asks for."""
        return Expected(self.load.of_images(share), self.seen * (share > 0))

    @property
    def pairs(self) -> float:
        return float(self.load.pairs.sum())

    @property
    def images(self) -> float:
        return float(self.seen.sum())


def expect(pools: Sequence[Pool], pictures: int) -> Expected:
    """Before stage 1 has chosen: as if any candidates were as likely as others; a member of a
    subset that is a candidate too is one pair.

    Real candidates crowd on some images, so fewer images are seen, with more pairs each: where
    candidates are few for the gallery, what is expected is rather too much.
    """
    pairs, tokens, looks, unseen = np.zeros((4, pictures))
    for pool in pools:
        asks = pool.removed != NONE_REMOVED
        chance = pool.candidates / np.maximum(1, pool.images - asks)
        beside = 1 - chance[pool.asking]
        for power, sums in enumerate((pairs, tokens, looks)):
            weights = pool.lengths**power
            sums[pool.gallery] += (chance * weights).sum()
            np.subtract.at(sums, pool.removed[asks], (chance * weights)[asks])
            np.add.at(sums, pool.members, beside * weights[pool.asking])
        misses = np.log1p(-np.minimum(chance, ALMOST_CERTAIN))
        unseen[pool.gallery] += misses.sum()
        np.subtract.at(unseen, pool.removed[asks], misses[asks])
        np.add.at(unseen, pool.members, np.log1p(-ALMOST_CERTAIN))
    return Expected(Load(pairs, tokens, looks), -np.expm1(unseen))


def known(load: Load) -> Expected:
    """Of pairs that stage 1 has chosen."""
    return Expected(load, (load.pairs > 0).astype(float))
