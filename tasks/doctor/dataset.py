"""Is this copy of a dataset whole? What lies there is read, and judged by the core."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cir_core.datasets.registry import Dataset
from cir_core.doctor.findings import EXAMPLES, Finding, blocked
from cir_core.doctor.verdicts import judge_counts, judge_images, judge_protocols, judge_queries
from cir_core.errors import CirError, PreflightError
from cir_core.protocols import Protocol
from cir_core.types import Benchmark, Split
from storage.sources.annotations import AnnotationReader
from storage.sources.images import Folders, decode_image, image_size
from storage.sources.roots import require_root
from tasks.stages.scan import scan_images


@dataclass(frozen=True)
class Copy:
    """What was found, and the splits that could be read, under the dataset's default protocol."""

    findings: list[Finding]
    benchmarks: dict[Split, Benchmark]


@dataclass(frozen=True)
class _Annotations:
    """The files of a split: those that could be read, and why the others could not."""

    split: Split
    reader: AnnotationReader
    readable: list[str]
    faults: dict[str, PreflightError]


def check_dataset(
    root: Path, dataset: Dataset, splits: Sequence[Split], *, insist: bool, decode: bool
) -> Copy:
    """Annotation files, counts, images, queries, and how much of each protocol can be evaluated.

    Splits that the dataset does not have, or of which no file is there, are passed over unless
    ``insist``. Every image is read and hashed; ``decode`` decodes it too, which alone finds a
    picture that breaks off. What is wrong with the copy becomes findings and is never raised.
    """
    try:
        require_root(root)
    except CirError as error:
        return Copy([blocked("data root", str(root), error)], {})
    findings: list[Finding] = []
    read: list[_Annotations] = []
    benchmarks: dict[Split, Benchmark] = {}
    for annotations in (_read_annotations(root, dataset, split) for split in splits):
        if annotations.readable or insist:
            told, benchmark = _examine(dataset, annotations)
            findings += told
            if benchmark is not None:
                read.append(annotations)
                benchmarks[annotations.split] = benchmark
    if not benchmarks:
        layout = f"expected below the data root:\n{dataset.about.layout}"
        nothing = Finding("annotations", "usable splits", "blocked", 0, 1, remedy=layout)
        return Copy([*findings, nothing], {})
    tops = {top for one in benchmarks.values() for top in one.folders}
    folders = Folders(root, sorted(tops))
    files = {image: places for one in benchmarks.values() for image, places in one.files.items()}
    images = scan_images(folders, files, measure=_decoded_size if decode else image_size)
    hashes = {row["image_id"]: row["sha256"] for row in images.rows}
    listed = [row.row(row.item) for one in benchmarks.values() for row in one.problems]
    problems = listed + images.problems
    findings += judge_images(dataset.about, benchmarks, hashes, problems, folders.names)
    for annotations in read:
        parse = partial(_parse, dataset, annotations)
        findings += judge_protocols(annotations.split, dataset.protocols, parse, hashes.keys())
    return Copy(findings, benchmarks)


def _decoded_size(content: bytes, relative: str) -> tuple[int, int]:
    return decode_image(content, relative).size


def _read_annotations(root: Path, dataset: Dataset, split: Split) -> _Annotations:
    """A split that the dataset does not have has no files, and one fault."""
    reader = AnnotationReader(root)
    try:
        files = dataset.adapter.annotation_files(split, dataset.adapter.categories)
    except PreflightError as error:
        return _Annotations(split, reader, [], {split: error})
    faults = {}
    for file in files:
        try:
            reader.read(file)
        except PreflightError as error:
            faults[file] = error
    readable = [file for file in files if file not in faults]
    return _Annotations(split, reader, readable, faults)


def _examine(dataset: Dataset, annotations: _Annotations) -> tuple[list[Finding], Benchmark | None]:
    """The split's files, counts and queries; no benchmark where it cannot be parsed."""
    split, findings = annotations.split, [_judge_files(annotations)]
    if not annotations.readable or (annotations.faults and not _readable(dataset, annotations)):
        return findings, None
    try:
        benchmark = _parse(dataset, annotations, dataset.protocols[0])
    except PreflightError as error:
        return [*findings, blocked(split, "annotations", error)], None
    findings += judge_counts(dataset.about, split, benchmark)
    return findings + judge_queries(split, benchmark), benchmark


def _readable(dataset: Dataset, annotations: _Annotations) -> list[str]:
    """The categories all of whose files were read."""
    adapter, split = dataset.adapter, annotations.split
    return [
        category
        for category in (adapter.categories if annotations.readable else ())
        if annotations.faults.keys().isdisjoint(adapter.annotation_files(split, [category]))
    ]


def _parse(dataset: Dataset, annotations: _Annotations, protocol: Protocol) -> Benchmark:
    return dataset.adapter.parse(
        annotations.split,
        _readable(dataset, annotations),
        annotations.reader.read,
        protocol,
    )


def _judge_files(annotations: _Annotations) -> Finding:
    found, faults = len(annotations.readable), annotations.faults.values()
    return Finding(
        part=annotations.split,
        check="annotation files",
        state="blocked" if faults else "ok",
        found=found,
        expected=found + len(faults),
        examples=tuple(f"{error.what}: {error.item}" for error in faults)[:EXAMPLES],
        remedy="; ".join({error.remedy: None for error in faults}),
    )
