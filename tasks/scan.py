"""Every image of a benchmark found, read, hashed and measured; every bad one a problem."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cir_core.errors import ImageProblem
from cir_core.types import ImageId
from storage.images import find_image, image_size, read_image, sha256_of_bytes
from tasks.progress import count


@dataclass(frozen=True)
class Images:
    """Rows of the tables ``images`` (the usable ones) and ``problems`` (the others)."""

    rows: list[dict[str, Any]]
    problems: list[dict[str, str]]


def scan_images(root: Path, files: Mapping[ImageId, Sequence[str]]) -> Images:
    """Each image by the first of its places that exists, in the order given.

    Files are always read and hashed, since only their bytes can say whether they changed.
    """
    rows, problems = [], []
    with count("hashing", len(files), "images") as counter:
        for image_id, names in files.items():
            try:
                path = find_image(root, names)
                content = read_image(root, path)
                width, height = image_size(content, path)
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
