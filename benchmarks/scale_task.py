"""What ``scale.py`` is about: its task, its prices, its tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp

import scale_costs as cost

from cir_core.search.choice import LISTS_PER_ROOT
from cir_core.search.faiss_index import MOST_TRAINING_IMAGES, ROUNDS
from tasks.shards import PICTURES


@dataclass(frozen=True)
class Prices:
    """Dollars, assumed on 2026-11-28: of no vendor's list. A GPU's hour is with its 16 cores; puts
    and gets are thousands."""

    gpu_hour: float = 4.0
    core_hour: float = 0.05
    gb_month: float = 0.025
    puts: float = 0.005
    gets: float = 0.0004


@dataclass(frozen=True)
class Task:
    images: int = 100_000_000
    queries: int = 1_000_000

    def pairs(self, k: int) -> int:
        return self.queries * k

    def seen(self, k: int) -> float:
        """Images that are anybody's candidate, where all are as likely: at most so many."""
        return self.images * (1 - exp(-self.pairs(k) / self.images))

    @property
    def shards(self) -> int:
        return ceil(self.images / PICTURES)

    @property
    def parts(self) -> int:
        return cost.PARTS * self.shards

    @property
    def compared(self) -> float:
        """FLOPs of every query with every image."""
        return 2.0 * cost.WIDTH * self.images * self.queries

    @property
    def clustered(self) -> float:
        """FLOPs of ivf's lists: rounds over some images a list, and each image into one."""
        lists = LISTS_PER_ROOT * self.images**0.5
        seen = ROUNDS * MOST_TRAINING_IMAGES * lists + self.images
        return 2.0 * cost.WIDTH * lists * seen


@dataclass(frozen=True)
class Table:
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __str__(self) -> str:
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)
