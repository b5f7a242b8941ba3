"""Pictures of a page: small ones within it, larger ones in a folder beside it."""

import base64
import io
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from cir_core.errors import ImageProblem
from cir_core.layers.preprocess import to_rgb
from storage.products import SUMS
from storage.sources.images import decode_image, read_image, sha256_of_bytes
from tasks.feed.lookahead import ahead

THUMBNAIL = 112
"""Pixels of the longer side of a picture within the page; 3 KB of a photograph."""

LARGE = 256
"""Of one in the folder; 11 KB. A JPEG of 512 pixels or more is decoded at half its size or less."""

INLINE_BYTES = 6_000_000
"""Of pictures within the page, as base64: some 1,500 photographs, or all of a small run."""

MOST_FILES = 20_000
"""Pictures in the folder unless more are asked for: 220 MB and a minute of two cores. Fashion-IQ's
whole gallery is 15,536, all of CIRCO's first tens are 15,000."""

PICTURE_BYTES = 12_000
"""Of a photograph, in the folder; those within the page are within its error."""

DIGITS = 20
"""Of an image's sha256, its picture's name: copies share one."""

QUALITY = 80

AHEAD = 4
"""Images for each core that are read before they are asked for."""


@dataclass(frozen=True)
class Picture:
    """Of one image. ``inline`` is the small one, a JPEG in base64; ``file`` the larger one's name
    in the folder. Either may be empty; both are where the image cannot be shown."""

    inline: str = ""
    file: str = ""


class Album:
    """Of the table ``images`` and the files' root. An image that cannot be decoded, or is not what
    was ingested any more, has no picture."""

    def __init__(self, images: pa.Table, root: Path) -> None:
        self._images = images.select(["image_id", "path", "sha256"])
        self._root = root

    def pictures(
        self,
        image_ids: Sequence[str],
        folder: Path,
        *,
        inline: int = INLINE_BYTES,
        files: int | None = MOST_FILES,
    ) -> Iterator[Picture]:
        """A picture of each image, in order: within the page until so many bytes are used up, and
        in the folder, with ``SHA256SUMS``, until there are so many files (None: all). Images that
        neither has room for are not read; a few for each core are in memory at a time.
        """
        known, room = self._known(image_ids), _Room(folder, inline, files)
        cores = os.cpu_count() or 1
        with ThreadPoolExecutor(cores) as threads:

            def draw(image_id: str) -> Future[_Drawn]:
                of = known.get(image_id) if room.is_left else None
                if of is None:
                    return threads.submit(_Drawn)
                return threads.submit(_draw, self._root, *of, is_inline=room.has_inline)

            drawn = ahead(draw, image_ids, AHEAD * cores)
            for image_id, one in zip(image_ids, drawn, strict=True):
                of = known.get(image_id)
                yield room.take(of[1], one) if of else Picture()
        room.write_sums()

    def _known(self, image_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Path and sha256 of those images that were ingested."""
        asked = pc.is_in(self._images["image_id"], pa.array(image_ids, pa.string()))
        rows = self._images.filter(asked).to_pylist()
        return {row["image_id"]: (row["path"], row["sha256"]) for row in rows}


@dataclass(frozen=True)
class _Drawn:
    """Both sizes, as JPEG; nothing of an image that cannot be shown. ``small`` is empty, too, where
    none is asked for, and ``large`` where the small one is all of the picture."""

    small: bytes = b""
    large: bytes = b""


class _Room:
    """What is left of it, within the page and in the folder."""

    def __init__(self, folder: Path, inline: int, files: int | None) -> None:
        self._folder, self._inline, self._files = folder, inline, files
        self._sums: dict[str, str] = {}

    @property
    def is_left(self) -> bool:
        return self.has_inline or self._has_files

    @property
    def has_inline(self) -> bool:
        return self._inline > 0

    @property
    def _has_files(self) -> bool:
        return self._files is None or len(self._sums) < self._files

    def take(self, sha256: str, drawn: _Drawn) -> Picture:
        """What there is room for; a copy's larger picture needs none."""
        inline = base64.b64encode(drawn.small).decode() if self.has_inline else ""
        if len(inline) > self._inline:  # it and all that follow
            inline, self._inline = "", 0
        self._inline -= len(inline)
        return Picture(inline, self._file(sha256, drawn.large if inline else _larger(drawn)))

    def _file(self, sha256: str, content: bytes) -> str:
        name = f"{sha256[:DIGITS]}.jpg"
        if name in self._sums:
            return name
        if not content or not self._has_files:
            return ""
        (self._folder / name).write_bytes(content)
        self._sums[name] = sha256_of_bytes(content)
        return name

    def write_sums(self) -> None:
        """Nothing where there is no file."""
        if self._sums:
            lines = [f"{digest}  {name}\n" for name, digest in self._sums.items()]
            (self._folder / SUMS).write_text("".join(lines))


def _larger(drawn: _Drawn) -> bytes:
    return drawn.large or drawn.small


def _draw(root: Path, path: str, sha256: str, *, is_inline: bool) -> _Drawn:
    try:
        content = read_image(root, path)
        if sha256_of_bytes(content) != sha256:
            return _Drawn()
        image = decode_image(content, path, side=LARGE)
        picture = to_rgb(image)
    except ImageProblem:
        return _Drawn()
    is_all = is_inline and max(picture.size) <= THUMBNAIL
    large = b"" if is_all else _jpeg(picture, LARGE)
    return _Drawn(_jpeg(picture, THUMBNAIL) if is_inline else b"", large)


def _jpeg(picture: Image.Image, side: int) -> bytes:
    """At most so large; ``picture`` is made as small as that, at half the cost of Lanczos."""
    picture.thumbnail((side, side), Image.Resampling.HAMMING)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
