"""Which files are pictures that can be read, told by their names; and which folders are nobody's.

What a file holds is decided by its content (``storage.sources.images``); a name decides whether a
user's folder is asked for it at all.
"""

from collections import Counter
from collections.abc import Iterable

from PIL import features

FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
}
"""Pillow's names of what is decoded, and the endings of such files. Its further formats include
one (EPS) that starts an external interpreter on the file's content where that is installed."""

if not features.check("avif"):  # Pillow can be built without it
    del FORMATS["AVIF"]

READ = tuple(ending for endings in FORMATS.values() for ending in endings)
"""Endings in lower case; the case of a name's letters does not matter."""

UNREAD = (
    ".avif", ".avifs", ".heic", ".heif", ".hif", ".jxl", ".jxr", ".wdp", ".hdp", ".jp2", ".j2k",
    ".jpf", ".jpx", ".bpg", ".qoi", ".svg", ".svgz", ".ai", ".eps", ".ps", ".pdf", ".psd", ".psb",
    ".xcf", ".kra", ".cdr", ".ico", ".icns", ".cur", ".tga", ".pcx", ".dds", ".exr", ".hdr", ".pfm",
    ".dng", ".raw", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2",
    ".rwl", ".raf", ".pef", ".srw", ".x3f", ".3fr", ".iiq", ".erf", ".kdc", ".mrw",
)  # fmt: skip
"""Endings of pictures, and of raw files of cameras, that are not read (AVIF only where it is not
among the formats above). A user who has such files wants to know that they are not searched."""

SYSTEM_FOLDERS = {
    "@eadir": "thumbnails of a Synology NAS",
    "@tmp": "a Synology NAS",
    "@recycle": "the waste of a QNAP NAS",
    "@recently-snapshot": "old states of a QNAP NAS",
    "#recycle": "the waste of a Synology NAS",
    "#snapshot": "old states of a Synology NAS",
    "~snapshot": "old states of a NetApp",
    "$recycle.bin": "the waste of Windows",
    "recycler": "the waste of Windows",
    "system volume information": "Windows",
    "found.000": "what Windows saved of a damaged disk",
    "__macosx": "what macOS puts beside the files in an archive",
    "network trash folder": "the waste of macOS",
    "temporary items": "macOS",
    "lost+found": "what Linux saved of a damaged disk",
}
"""Names, in lower case, of folders that a system makes without being asked, and why. What lies
there is a copy, or was thrown away. Names that begin with a dot are passed over anyway."""


def ending(name: str) -> str:
    """From the last dot on, in lower case; of a name without a dot, its last letter."""
    return name[name.rfind(".") :].lower()


def is_read(name: str) -> bool:
    """Whether a file of this name is taken for a picture."""
    return ending(name) in READ


def is_unread(name: str) -> bool:
    """Whether a file of this name is a picture of a kind that is not read."""
    return ending(name) in UNREAD and not is_read(name)


def count_endings(names: Iterable[str]) -> str:
    """How many of each, the most frequent first: ``9 .heic, 3 .svg``."""
    counts = Counter(map(ending, names))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {name}" for name, count in ordered)
