"""Image files: found, read and decoded safely; a bad one is an ImageProblem, never a crash."""

import errno
import hashlib
import io
import os
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from cir_core.errors import ImageProblem

MOST_PIXELS = 50_000_000
"""Above any photo of the benchmarks. A 12 KB PNG can claim 100 megapixels and take 500 MiB."""

MOST_SIDE = 20_000
"""Padding to 1.25 : 1 makes a 1 x 20,000 picture 16,000 x 20,000: 1.3 GB, for a moment."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""What a file may hold, whatever its name. Pillow's further formats include one (EPS) that starts
an external interpreter on the file's content where that is installed."""


def find_image(root: Path, relative: Sequence[str]) -> str:
    """The first of the relative paths that exists. Raises ImageProblem ``missing``."""
    for path in relative:
        if os.path.lexists(root / path):
            return path
    raise ImageProblem(
        "missing", "no file for an image", item=relative[0], cause=f"looked for {list(relative)}"
    )


def read_image(root: Path, relative: str) -> bytes:
    """The bytes of a regular file below ``root``.

    Raises ImageProblem: missing, empty, denied, or unsafe_path (folder, FIFO, device, or a link
    that leaves the root: opening those can hang or leak).
    """
    path = root / relative
    try:
        real = Path(os.path.realpath(path, strict=True))  # OSError for a loop, unlike resolve()
        if not real.is_relative_to(root.resolve()):
            raise ImageProblem("unsafe_path", "an image's path leaves the data root", item=relative)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageProblem("missing", "no file for an image", item=relative) from error
    except PermissionError as error:
        raise ImageProblem("denied", "an image may not be read", item=relative) from error
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise ImageProblem("unsafe_path", "an image's path is unusable", item=relative) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # before fdopen, which trips on folders
            raise ImageProblem("unsafe_path", "an image's path is not a file", item=relative)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            content = file.read()
    finally:
        os.close(descriptor)
    if not content:
        raise ImageProblem("empty", "an image file is empty", item=relative)
    return content


def sha256_of_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def image_size(content: bytes, relative: str) -> tuple[int, int]:
    """Width and height from the header alone.

    Raises ImageProblem: unreadable, truncated, too_large.
    """
    with _opened(content, relative) as image:
        return image.size


def decode_image(content: bytes, relative: str) -> Image.Image:
    """The decoded picture (first frame of an animation).

    Raises ImageProblem: unreadable, truncated, too_large (told from the header, before decoding).
    """
    image = _opened(content, relative)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata that nobody reads here
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise _undecodable(error, relative) from error
    return image


def _opened(content: bytes, relative: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, higher, limit; ours follows below
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageProblem("unreadable", "a file is not an image", item=relative) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise _undecodable(error, relative) from error
    except Image.DecompressionBombError as error:
        raise ImageProblem(
            "too_large", "an image is too large", item=relative, cause=str(error)
        ) from error
    width, height = image.size
    if width * height > MOST_PIXELS or max(width, height) > MOST_SIDE:
        raise ImageProblem(
            "too_large", "an image is too large", item=relative, cause=f"{width} x {height} pixels"
        )
    return image


def _undecodable(error: Exception, relative: str) -> ImageProblem:
    """Pillow says "truncated", in one or the other case, where the data ends early."""
    kind = "truncated" if "truncated" in str(error).lower() else "unreadable"
    return ImageProblem(kind, "an image cannot be decoded", item=relative, cause=str(error))
