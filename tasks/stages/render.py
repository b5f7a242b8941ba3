"""Draw the demo dataset into a folder laid out like Fashion-IQ."""

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from cir_core.datasets.demo.drawing import draw
from cir_core.datasets.demo.garments import CATEGORIES
from cir_core.datasets.demo.world import SEED, annotation_files, build_split, image_ids
from cir_core.types import ImageId, Split
from storage.atomic import commit_text
from storage.products import Product
from storage.store import LocalStore

RENDERING = 4
"""Raise when a drawing or an annotation of the demo changes."""

_log = logging.getLogger(__name__)


def render_demo(root: Path, split: Split) -> None:
    """Draw the split's pictures below ``root`` and write its annotations. Where they are this
    version's, and all of them still what was drawn, nothing is done."""
    product = _product(root, split)
    made_of = {"seed": str(SEED)}
    if product.sources() == made_of:
        return
    content = build_split(split)
    _log.info("drawing %d demo pictures of split %s in %s", len(content.images), split, root)
    (root / "images").mkdir(parents=True, exist_ok=True)
    for picture in content.images:
        image = draw(picture.garment, np.random.default_rng(picture.jitter_seed))
        image.save(root / _file(picture.image_id), compress_level=1)
    for relative, annotation in content.annotations.items():
        commit_text(root / relative, _written(relative, annotation))
    product.record(made_of)


def _written(relative: str, annotation: Any) -> str:
    if relative.endswith(".jsonl"):
        return "".join(json.dumps(line) + "\n" for line in annotation)
    return json.dumps(annotation, indent=1) + "\n"


def _product(root: Path, split: Split) -> Product:
    pictures = [_file(one) for category in CATEGORIES for one in image_ids(split, category)]
    files = [*pictures, *annotation_files(split)]
    return Product(LocalStore(root), "", f"demo-{split}", str(RENDERING), files)


def _file(image_id: ImageId) -> str:
    return f"images/{image_id}.png"
