"""Image files: found, read and decoded safely; a bad one is an ImageProblem, never a crash."""

import errno
import hashlib
import io
import os
import stat
import warnings
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from cir_core.errors import ImageProblem
from cir_core.picture_files import FORMATS
from storage.descriptors import NUMBERS
from storage.sources.likeness import likeness
from storage.sources.metadata import without_metadata
from storage.sources.roots import BucketRoot, FolderRoot, open_root

MOST_PIXELS = 50_000_000
"""Above any photo of the benchmarks. A 12 KB PNG can claim 100 megapixels and take 500 MiB."""

MOST_SIDE = 20_000
"""Padding to 1.25 : 1 makes a 1 x 20,000 picture 16,000 x 20,000: 320 megapixels to resize."""

MOST_BYTES = 4 * MOST_PIXELS
"""Of a file, asked before it is read: four channels of 8 bits, uncompressed."""

MACHINE_ERRORS = (*NUMBERS, errno.ENOMEM)
"""Out of descriptors or memory: no image is to blame, and going on would blame all of them."""

UNDECODABLE = (OSError, SyntaxError, ValueError, RuntimeError)
"""What Pillow raises of a header that it cannot read, the last for AVIF alone."""


class Folders:
    """The files below a data root, each folder listed once however many of them are asked for.

    ``tops`` are the folders in which images lie by the dataset's layout. A link that stands in one
    of them, or on the way to one, is its owner's choice and may lead anywhere; any other must not
    leave the data root, or what such a link leads to.
    """

    def __init__(self, root: Path, tops: Sequence[str] = (".",)) -> None:
        self.root, self._place = root, open_root(root)
        self._tops = {str(PurePosixPath(top)) for top in tops}
        self._tops |= {str(above) for top in tops for above in PurePosixPath(top).parents}
        self._names: dict[str, frozenset[str] | None] = {}
        self._grounds: dict[str, tuple[Path, ...]] = {}

    def names(self, folder: str) -> frozenset[str]:
        """What lies in a folder, relative to the root; nothing when it cannot be listed."""
        return self._listed(folder) or frozenset()

    def has(self, relative: str) -> bool:
        """Whether something (a link to nothing, too) has this path."""
        folder, _, name = relative.rpartition("/")  # far quicker than pathlib, 100,000 times
        names = self._listed(folder or ".")
        return os.path.lexists(self.root / relative) if names is None else name in names

    def find(self, relative: Sequence[str]) -> str:
        """The first of the paths that exists. Raises ImageProblem ``missing``."""
        for path in relative:
            if self.has(path):
                return path
        raise ImageProblem(
            "missing",
            "no file for an image",
            item=relative[0],
            cause=f"looked for {list(relative)}",
        )

    def read(self, relative: str) -> bytes:
        """As ``read_image``. Raises ImageProblem ``unsafe_path`` too, when a link leads where it
        must not, naming both."""
        if isinstance(self._place, FolderRoot):
            try:
                self._ground(relative)
            except OSError as error:
                raise _unread(error, relative) from error
        return read_image(self.root, relative)

    def _ground(self, path: str) -> tuple[Path, ...]:
        """The real folders within which links at this path may lead: the data root, and where a
        link on the way here leads."""
        folder, _, name = path.rpartition("/")
        if not folder and name in ("", "."):
            return (Path(os.path.realpath(self.root)),)
        above = self._grounds.get(folder)
        if above is None:
            above = self._grounds[folder] = self._ground(folder)
        link = os.path.join(self.root, path)
        if not os.path.islink(link):
            return above
        target = Path(os.path.realpath(link, strict=True))
        if any(target.is_relative_to(place) for place in above):
            return above
        if (folder or ".") in self._tops:
            return (*above, target)
        raise ImageProblem(
            "unsafe_path",
            "a link leads out of the data root",
            item=path,
            cause=f"to {os.fsencode(target).decode(errors='backslashreplace')}",
        )

    def _listed(self, folder: str) -> frozenset[str] | None:
        """None for a folder that may be entered and not listed."""
        if folder not in self._names and isinstance(self._place, BucketRoot):
            self._names[folder] = self._place.names(folder)
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(os.listdir(self.root / folder))
            except PermissionError:
                self._names[folder] = None
            except (OSError, ValueError):  # no such folder, or no possible path
                self._names[folder] = frozenset()
        return self._names[folder]


def read_image(root: Path, relative: str) -> bytes:
    """The bytes of a regular file, or an object, below ``root``; links are ``Folders``' matter.

    Raises ImageProblem: missing, empty, too_large, denied, io_error (the disk or the network
    fails), or unsafe_path (folder, FIFO, device, a loop of links, or a path that is written so that
    it leaves the root: opening those can hang or leak).
    """
    try:
        content = _read_regular(root, relative)
    except OSError as error:
        raise _unread(error, relative) from error
    if not content:
        raise ImageProblem("empty", "an image file is empty", item=relative)
    return content


def _read_regular(root: Path, relative: str) -> bytes:
    if relative.startswith("/") or ".." in relative.split("/"):
        raise ImageProblem("unsafe_path", "an image's path leaves the data root", item=relative)
    place = open_root(root)
    if isinstance(place, BucketRoot):
        return place.read_at_most(relative, MOST_BYTES)
    path = root / relative
    _require_regular(os.stat(path), relative)  # opening a device may act on it
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        _require_regular(os.fstat(descriptor), relative)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def _require_regular(status: os.stat_result, relative: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ImageProblem("unsafe_path", "an image's path is not a file", item=relative)
    if status.st_size > MOST_BYTES:
        raise OSError(errno.EFBIG, f"{status.st_size} bytes")


def _unread(error: OSError, relative: str) -> ImageProblem:
    if error.errno in MACHINE_ERRORS:
        raise error
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ImageProblem("missing", "no file for an image", item=relative)
    if isinstance(error, PermissionError):
        return ImageProblem("denied", "an image may not be read", item=relative)
    if error.errno == errno.EFBIG:
        told = error.strerror or ""
        return ImageProblem("too_large", "an image file is too large", item=relative, cause=told)
    if error.errno in (errno.ELOOP, errno.ENXIO):
        return ImageProblem("unsafe_path", "an image's path is unusable", item=relative)
    return ImageProblem("io_error", "reading an image failed", item=relative, cause=str(error))


def sha256_of_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def image_size(content: bytes, relative: str) -> tuple[int, int]:
    """Width and height from the header alone.

    Raises ImageProblem: unreadable, truncated, too_large, unsupported (values without a range).
    """
    with _opened(content, relative) as image:
        return image.size


def decode_image(content: bytes, relative: str, *, side: int | None = None) -> Image.Image:
    """The decoded picture (first frame of an animation). With ``side`` a JPEG may come out smaller,
    by a half, a quarter or an eighth, which is quicker, while its longer side has so many pixels.

    Raises ImageProblem: unreadable, truncated; and, from the header, before decoding, too_large and
    unsupported.
    """
    image = _opened(content, relative)
    if side is not None:
        image.draft(None, _box(image.size, side))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata that nobody reads here
            image.load()
    except MemoryError:
        raise
    except Exception as error:  # what decoders make of damaged bytes: ZeroDivisionError, TypeError
        raise _undecodable(error, relative) from error
    return image


def _opened(content: bytes, relative: str) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own, higher, limit; ours follows below
            image = Image.open(io.BytesIO(without_metadata(content)), formats=tuple(FORMATS))
    except UnidentifiedImageError as error:
        raise ImageProblem(
            "unreadable", "a file is not an image", item=relative, cause=likeness(content)
        ) from error
    except UNDECODABLE as error:
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
    if not _has_known_range(image):
        raise ImageProblem(
            "unsupported",
            "an image's values have no known range",
            item=relative,
            cause=f"{image.format} in mode {image.mode}: which value is white is not told",
        )
    return image


def _box(size: tuple[int, int], side: int) -> tuple[int, int]:
    """A picture's size once its longer side has so many pixels, rounded up."""
    width, height = size
    return -(-width * side // max(size)), -(-height * side // max(size))


def _undecodable(error: Exception, relative: str) -> ImageProblem:
    """Pillow says "truncated", in one or the other case, where the data ends early."""
    kind = "truncated" if "truncated" in str(error).lower() else "unreadable"
    return ImageProblem(kind, "an image cannot be decoded", item=relative, cause=str(error))


def _has_known_range(image: Image.Image) -> bool:
    """Whether a picture's mode says which value is black and which white. 32-bit integers and
    floats do not, but for what Pillow makes of a 16-bit PPM; that is told from the header."""
    return image.mode not in ("I", "F") or (image.mode, image.format) == ("I", "PPM")
