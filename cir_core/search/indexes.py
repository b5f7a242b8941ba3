"""The vector indexes, opened by their names; FAISS is imported where it is asked for."""

from importlib.util import find_spec

from cir_core.errors import PreflightError
from cir_core.search.candidates import VectorIndex
from cir_core.search.choice import IndexChoice
from cir_core.search.exact import ExactIndex
from cir_core.search.scores import Gallery

INSTALL = {"cpu": "pip install -c constraints.txt '.[cpu]'", "gpu": "pip install '.[gpu]'"}
"""The two are builds of one module, which overwrite each other: one environment holds one."""


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


def open_index(gallery: Gallery, choice: IndexChoice) -> VectorIndex:
    """The index over this gallery, ready to be searched. Raises as ``require_available``, and as
    the index itself."""
    if choice.kind == "exact":
        return ExactIndex(gallery)
    require_available(choice)
    from cir_core.search.faiss_index import FaissIndex

    return FaissIndex(gallery, choice)


def _gpus() -> int:
    import faiss

    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0
