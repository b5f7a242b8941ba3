"""All analyses, in the order in which they are told."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from storage.answers import OpenCatalog
from tasks.results.analyses.analysis import Analysis
from tasks.results.analyses.k_curve import k_curve
from tasks.results.analyses.separation import separation
from tasks.results.analyses.signatures import signatures
from tasks.results.analyses.slices import slices

ANALYSES: Sequence[Callable[[OpenCatalog, Mapping[str, Any]], Analysis]] = (
    k_curve,
    separation,
    slices,
    signatures,
)
