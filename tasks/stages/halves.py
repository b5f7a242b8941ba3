"""A gallery's labelled queries, halved: each half is asked with what the other calibrated."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.conformal import fold_of
from tasks.stages.choosing import within


def folds_of(queries: pa.Table) -> list[int | None]:
    """Of each query; None of one without label, which all labelled ones calibrate."""
    is_labelled = pc.is_valid(queries["targets"]).to_pylist()
    ids = queries["query_id"].to_pylist()
    return [fold_of(one) if known else None for one, known in zip(ids, is_labelled, strict=True)]


def thresholds_of(queries: pa.Table, thresholds: pa.Table, gallery: str) -> np.ndarray:
    """By which of the ``schemas.THRESHOLDS`` each of a gallery's queries is asked; by that of those
    without label, where another run calibrates and there is no other."""
    mine = within(thresholds, "gallery", [gallery])
    of_fold = dict(zip(mine["fold"].to_pylist(), mine["threshold"].to_pylist(), strict=True))
    each = (fold if fold in of_fold else None for fold in folds_of(queries))
    return np.array([of_fold[fold] for fold in each], dtype=float)
