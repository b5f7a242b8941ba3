"""Thumbnails of a run's pictures."""

import base64
import io
from functools import cache
from pathlib import Path

import pyarrow as pa
from PIL import Image

from cir_core.errors import ImageProblem
from cir_core.layers.preprocess import to_rgb
from storage.sources.images import decode_image, read_image, sha256_of_bytes

THUMBNAIL = 112
"""Pixels of the longer side; a page of a hundred pictures stays near one megabyte."""


class Album:
    """Of the table ``images`` and the files' root."""

    def __init__(self, images: pa.Table, root: Path) -> None:
        rows = images.select(["image_id", "path", "sha256"]).to_pylist()
        self._files = {row["image_id"]: (row["path"], row["sha256"]) for row in rows}
        self._root = root
        self.thumbnail = cache(self._thumbnail)

    def _thumbnail(self, image_id: str) -> str:
        """A data URL; empty when the image cannot be shown, or is not what was ingested."""
        if image_id not in self._files:
            return ""
        path, sha256 = self._files[image_id]
        try:
            content = read_image(self._root, path)
            if sha256_of_bytes(content) != sha256:
                return ""
            image = to_rgb(decode_image(content, path))
        except ImageProblem:
            return ""
        image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=85)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
