"""Every image of a benchmark found, read, hashed and measured; every bad one a problem."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cir_core.datasets.ids import twins
from cir_core.errors import ImageProblem
from cir_core.types import Benchmark, ImageId
from storage.sources.images import Folders, image_size, sha256_of_bytes
from storage.sources.looks import Looks
from tasks.progress import count


@dataclass(frozen=True)
class Images:
    """Rows of the tables ``images`` (the usable ones) and ``problems`` (the others)."""

    rows: list[dict[str, Any]]
    problems: list[dict[str, str]]


EXAMPLES_SHOWN = 5

_log = logging.getLogger(__name__)

Measure = Callable[[bytes, str], tuple[int, int]]
"""Width and height of an image's bytes; raises ImageProblem when they are none."""


def scan_images(
    folders: Folders,
    files: Mapping[ImageId, Sequence[str]],
    *,
    measure: Measure = image_size,
    looks: Looks | None = None,
) -> Images:
    """Each image by the first of its places that exists, in the order given.

    Files are always read and hashed, since only their bytes can say whether they changed. The
    default measure looks at the header alone. ``looks`` notes how each file looked before.
    """
    rows, problems = [], []
    with count("hashing", len(files), "images") as counter:
        for image_id, names in files.items():
            try:
                path = folders.find(names)
                if looks is not None:
                    looks.note(path)
                content = folders.read(path)
                width, height = measure(content, path)
            except ImageProblem as problem:
                problems.append(problem.row(image_id))
            else:
                rows.append(
                    {
                        "image_id": image_id,
                        "path": path,
                        "sha256": sha256_of_bytes(content),
                        "width": width,
                        "height": height,
                    }
                )
            counter.update(1)
    return Images(rows, problems)


def tell_notes(benchmark: Benchmark) -> None:
    """What a reader of the split wants to know, and ids that some systems take for one."""
    for note in benchmark.notes:
        _log.warning("%s", note)
    alike = twins(benchmark.files)
    if alike:
        told = ", ".join(f"{one!r} and {other!r}" for one, other in alike[:EXAMPLES_SHOWN])
        _log.warning(
            "%d image ids differ from another in case or Unicode form alone; they are different "
            "images here, but macOS and Windows may hold one file for both: %s",
            len(alike), told,
        )  # fmt: skip


def tell_several(several: Mapping[ImageId, Sequence[str]]) -> None:
    """One file was taken of each of these images."""
    if several:
        told = [
            f"{there[0]}, not {', '.join(there[1:])}"
            for there in list(several.values())[:EXAMPLES_SHOWN]
        ]
        more = f"; ... and {len(several) - len(told)} more" if len(several) > len(told) else ""
        _log.warning(
            "%d images have several files, and the first of the possible names is taken: %s%s",
            len(several), "; ".join(told), more,
        )  # fmt: skip
