"""Who does what, where several share work that is not all alike."""

from collections.abc import Sequence
from heapq import heapify, heapreplace


def shared_out(weights: Sequence[float], workers: int) -> list[list[int]]:
    """For each worker the numbers of its items, ascending; ``weights`` are not negative.

    The heaviest first, each to the worker with the least to do; of equal items the earlier one, of
    equal workers the one with fewer items, then the earlier one. So items of one weight go round in
    turn, and nobody has none where there are enough. The longest share is at most
    ``4/3 - 1 / (3 workers)`` times that of the best way to share (R. L. Graham, Bounds on
    Multiprocessing Timing Anomalies, 1969).
    """
    shares: list[list[int]] = [[] for _ in range(workers)]
    loads = [(0.0, 0, worker) for worker in range(workers)]
    heapify(loads)
    for item in sorted(range(len(weights)), key=lambda item: -weights[item]):
        load, count, worker = loads[0]
        shares[worker].append(item)
        heapreplace(loads, (load + weights[item], count + 1, worker))
    return [sorted(share) for share in shares]
