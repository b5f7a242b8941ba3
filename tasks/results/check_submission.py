"""Is a file a submission that the test server takes?"""

from pathlib import Path
from typing import Literal

from cir_core.datasets.registry import find_dataset
from cir_core.errors import PreflightError, ProblemsFound
from cir_core.submissions import circo, cirr
from cir_core.submissions.faults import Verdict
from cir_core.types import Benchmark
from storage.sources.annotations import AnnotationReader
from storage.sources.roots import require_root

CheckedDataset = Literal["cirr", "circo"]
CheckedSplit = Literal["val", "test"]

_CHECKS = {"cirr": cirr.check, "circo": circo.check}


def check_submission(
    file: Path, dataset: CheckedDataset, split: CheckedSplit, data_root: Path | None
) -> Verdict:
    """Every fault of anybody's file, by the annotations below ``data_root``; without, by its form.

    Images are not needed. Raises PreflightError when the file cannot be read, and AnnotationError
    for missing or malformed annotations.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise PreflightError(
            "the submission cannot be read", item=str(file), cause=error.strerror or str(error)
        ) from error
    benchmark = None if data_root is None else _read_benchmark(data_root, dataset, split)
    published = find_dataset(dataset).about.counts[split]
    queries = sum(published.queries.values())
    return _CHECKS[dataset](content, split, benchmark=benchmark, queries=queries)


def require_accepted(verdict: Verdict, file: Path) -> None:
    """Raises ProblemsFound with every fault of a submission."""
    if verdict.faults:
        count = sum(fault.count for fault in verdict.faults)
        told = "1 fault" if count == 1 else f"{count:,} faults"
        raise ProblemsFound(
            f"the test server would refuse this submission: {told}",
            item="\n".join([f"{file}, as {verdict.checked}", *map(str, verdict.faults)]),
            remedy="correct them; --split val checks a file for the validation split",
        )


def _read_benchmark(root: Path, dataset: CheckedDataset, split: CheckedSplit) -> Benchmark:
    require_root(root)
    known = find_dataset(dataset)
    return known.adapter.parse(
        split,
        known.adapter.categories,
        AnnotationReader(root).read,
        known.protocol(None),
    )
