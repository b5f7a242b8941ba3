"""Which vector index finds stage 1's candidates: its name and its settings."""

from dataclasses import dataclass
from math import sqrt
from typing import Literal

from cir_core.errors import UsageError

IndexKind = Literal["exact", "flat", "ivf", "gpu"]
"""``exact``: our own blocked search. ``flat``, ``ivf``, ``gpu``: FAISS's exhaustive search, its
inverted lists, and its exhaustive search on the first visible GPU."""

TRAINING_IMAGES = 39
"""Per list at least: FAISS warns below."""

LISTS_PER_ROOT = 4
"""Lists are so many times the square root of the gallery's size by default."""


@dataclass(frozen=True)
class IndexChoice:
    """All of it changes results, so all of it names them.

    ``lists`` (FAISS: nlist) are an ``ivf`` index's clusters of images, ``probes`` (nprobe) how many
    of them a query looks through; None lets the gallery's size decide. Raises UsageError when they
    contradict each other or the kind.
    """

    kind: IndexKind = "exact"
    lists: int | None = None
    probes: int | None = None

    def __post_init__(self) -> None:
        if self.kind != "ivf" and (self.lists, self.probes) != (None, None):
            raise UsageError(
                f"the index {self.kind} has neither lists nor probes",
                remedy="pass --index ivf, or leave out --nlist and --nprobe",
            )
        for name, value in (("--nlist", self.lists), ("--nprobe", self.probes)):
            if value is not None and value < 1:
                raise UsageError(f"{name} is {value}", remedy="pass 1 or more")
        if self.lists and self.probes and self.probes > self.lists:
            raise UsageError(
                f"{self.probes} of {self.lists} lists cannot be probed",
                remedy=f"pass --nprobe {self.lists} or less",
            )

    def require_all(self) -> None:
        """Raises UsageError for an index that does not look at every image."""
        if self.kind == "ivf":
            raise UsageError(
                "an ivf index cannot give all of a gallery",
                cause="a query looks through some of its lists alone",
                remedy="leave --index out, or pass a number of candidates: -k 50",
            )

    def settings(self) -> dict[str, str | int | None]:
        """As an artifact's identity records it."""
        if self.kind != "ivf":
            return {"index": self.kind}
        return {"index": self.kind, "lists": self.lists, "probes": self.probes}


def count_lists(images: int, choice: IndexChoice) -> int:
    """Of an ``ivf`` index over so many images. Raises UsageError when they are too few for the
    lists that are asked for."""
    most = max(1, images // TRAINING_IMAGES)
    if choice.lists is None:
        return min(most, round(LISTS_PER_ROOT * sqrt(images)))
    if choice.lists > most:
        raise UsageError(
            f"{choice.lists} lists are too many for a gallery of {images} images",
            cause=f"each is learnt from {TRAINING_IMAGES} images or more",
            remedy=f"pass --nlist {most} or less, or leave it out",
        )
    return choice.lists
