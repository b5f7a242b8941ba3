"""All analyses, in the order in which they are told."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from storage.answers import OpenCatalog, reading
from tasks.results.analyses.analysis import Analysis
from tasks.results.analyses.failure_split import failure_split
from tasks.results.analyses.halves import halves
from tasks.results.analyses.k_curve import k_curve
from tasks.results.analyses.movement import movement
from tasks.results.analyses.separation import separation
from tasks.results.analyses.signatures import signatures
from tasks.results.analyses.slices import slices
from tasks.results.analyses.ties import ties
from tasks.results.analyses.z_t import z_t

ANALYSES: Sequence[Callable[[OpenCatalog, Mapping[str, Any]], Analysis]] = (
    failure_split,
    movement,
    k_curve,
    separation,
    z_t,
    halves,
    slices,
    signatures,
    ties,
)
"""Each has numbers of a catalog, and a row of its table ``runs``."""


def analyse(catalog: Path, run_id: str) -> list[Analysis]:
    """All of them, of a run that the catalog has. Raises as ``reading``."""
    with reading(catalog) as opened:
        run = opened.run(run_id)
        return [one(opened, run) for one in ANALYSES]
