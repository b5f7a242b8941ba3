"""Draw the demo dataset into a folder laid out like Fashion-IQ."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from cir_core.datasets.demo.drawing import draw
from cir_core.datasets.demo.world import SEED, DemoSplit, build_split
from cir_core.types import Split
from storage.atomic import commit_text

RENDERING = 4
"""Raise when a drawing or an annotation of the demo changes."""

_log = logging.getLogger(__name__)


def render_demo(root: Path, split: Split) -> None:
    """Draw the split's pictures below ``root`` and write its annotations; the marker comes last.
    Where it says that they are this version's, and no file is missing, nothing is done."""
    marker, version = root / f".{split}.rendered", f"{SEED}-{RENDERING}"
    content = build_split(split)
    if marker.is_file() and marker.read_text() == version and _is_whole(root, content):
        return
    _log.info("drawing %d demo pictures of split %s in %s", len(content.images), split, root)
    (root / "images").mkdir(parents=True, exist_ok=True)
    for picture in content.images:
        image = draw(picture.garment, np.random.default_rng(picture.jitter_seed))
        image.save(root / "images" / f"{picture.image_id}.png", compress_level=1)
    for relative, annotation in content.annotations.items():
        commit_text(root / relative, _written(relative, annotation))
    commit_text(marker, version)


def _written(relative: str, annotation: Any) -> str:
    if relative.endswith(".jsonl"):
        return "".join(json.dumps(line) + "\n" for line in annotation)
    return json.dumps(annotation, indent=1) + "\n"


def _is_whole(root: Path, content: DemoSplit) -> bool:
    pictures = {f"images/{picture.image_id}.png" for picture in content.images}
    return all((root / relative).is_file() for relative in pictures | content.annotations.keys())
