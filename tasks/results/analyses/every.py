"""All analyses, in the order in which they are told."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from storage.answers import OpenCatalog
from tasks.results.analyses.analysis import Analysis
from tasks.results.analyses.failure_split import failure_split
from tasks.results.analyses.k_curve import k_curve
from tasks.results.analyses.movement import movement
from tasks.results.analyses.separation import separation
from tasks.results.analyses.signatures import signatures
from tasks.results.analyses.slices import slices

ANALYSES: Sequence[Callable[[OpenCatalog, Mapping[str, Any]], Analysis]] = (
    failure_split,
    movement,
    k_curve,
    separation,
    slices,
    signatures,
)
