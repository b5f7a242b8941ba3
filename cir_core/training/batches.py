"""Which examples a step sees: functions of seed and step alone, so that a resumed run goes on."""

import numpy as np
from jaxtyping import Int
from numpy.typing import NDArray


def steps_per_epoch(total: int, batch: int) -> int:
    """Full batches in one pass over ``total`` examples; at least one."""
    return max(1, total // batch)


def epoch_rows(
    total: int, batch: int, seed: int, step: int, *, group: int = 1
) -> NDArray[np.int64]:
    """Rows of the step's batch: a fresh permutation each epoch, the ragged rest left out.

    ``group`` consecutive rows stay together (it should divide ``batch``).
    """
    epoch, position = divmod(step, steps_per_epoch(total, batch))
    groups = np.random.default_rng((seed, 1, epoch)).permutation(-(-total // group))
    order = (groups[:, None] * group + np.arange(group)).ravel()
    order = order[order < total]
    return order[position * batch : (position + 1) * batch]


def length_sorted_rows(
    lengths: Int[np.ndarray, " example"], batch: int, seed: int, step: int, *, pool: int = 32
) -> NDArray[np.int64]:
    """Rows of the step's batch, of similar text length: an epoch's permutation is cut into pools
    of ``pool`` batches, each pool sorted by length and its batches shuffled. Little padding, and
    still another mixture each epoch."""
    per_epoch = steps_per_epoch(len(lengths), batch)
    epoch, position = divmod(step, per_epoch)
    order = np.random.default_rng((seed, 1, epoch)).permutation(len(lengths))
    start = position // pool * pool * batch
    members = order[start : min(start + pool * batch, per_epoch * batch)]
    members = members[np.argsort(lengths[members], kind="stable")]
    batches = np.random.default_rng((seed, 2, epoch, position // pool)).permutation(
        max(1, len(members) // batch)
    )
    chosen = int(batches[position % pool])
    return members[chosen * batch : (chosen + 1) * batch]


def drawn_ways(
    ways: Int[np.ndarray, " example"], seed: int, epoch: int
) -> Int[np.ndarray, " example"]:
    """For each example, which of its ``ways`` of wording is read in this epoch."""
    rng = np.random.default_rng((seed, 3, epoch))
    return (rng.random(len(ways)) * ways).astype(np.int64)
