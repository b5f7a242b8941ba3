"""Which vector index finds stage 1's candidates: its name, its settings, and how it is opened."""

from dataclasses import dataclass
from importlib.util import find_spec
from math import sqrt
from typing import TYPE_CHECKING, Literal

from cir_core.errors import PreflightError, UsageError

if TYPE_CHECKING:
    from cir_core.retrieval.candidates import VectorIndex
    from cir_core.retrieval.scores import Gallery

IndexKind = Literal["exact", "flat", "ivf", "gpu"]
"""``exact``: our own blocked search. ``flat``, ``ivf``, ``gpu``: FAISS's exhaustive search, its
inverted lists, and its exhaustive search on the first visible GPU."""

INSTALL = {"cpu": "pip install -c constraints.txt '.[cpu]'", "gpu": "pip install '.[gpu]'"}
"""The two are builds of one module, which overwrite each other: one environment holds one."""


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

    def settings(self) -> dict[str, str | int | None]:
        """As an artifact's identity records it."""
        if self.kind != "ivf":
            return {"index": self.kind}
        return {"index": self.kind, "lists": self.lists, "probes": self.probes}


def require_available(choice: IndexChoice) -> None:
    """Raises PreflightError when the index needs FAISS, or a GPU build of it and a GPU, and this
    environment has none."""
    if choice.kind == "exact":
        return
    wanted = "gpu" if choice.kind == "gpu" else "cpu"
    if find_spec("faiss") is None:
        raise PreflightError(
            f"the index {choice.kind} needs FAISS, which is not installed",
            remedy=f"{INSTALL[wanted]}, or pass --index exact",
        )
    if wanted == "gpu" and not _gpus():
        raise PreflightError(
            "FAISS finds no GPU",
            cause="this is its CPU build, or there is no CUDA device",
            remedy=f"pip uninstall faiss-cpu, then {INSTALL[wanted]}; or pass --index exact",
        )


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


def open_index(gallery: "Gallery", choice: IndexChoice) -> "VectorIndex":
    """The index over this gallery, ready to be searched. Raises as ``require_available``, and as
    the index itself."""
    if choice.kind == "exact":
        from cir_core.retrieval.exact import ExactIndex

        return ExactIndex(gallery)
    require_available(choice)
    from cir_core.retrieval.faiss_index import FaissIndex

    return FaissIndex(gallery, choice)


def _gpus() -> int:
    import faiss

    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0
