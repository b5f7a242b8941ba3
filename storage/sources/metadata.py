"""Picture files without what they tell beside the picture."""

from struct import error as StructError  # noqa: N812 - a class under a lower-case name
from struct import unpack_from

PNG = b"\x89PNG\r\n\x1a\n"

METADATA = frozenset({b"iCCP", b"tEXt", b"zTXt", b"iTXt"})
"""Colour profile and texts (XMP is one), which nobody reads here. Pillow unpacks them while it
looks for the pixels: above 1 MiB each, or 64 MiB together, it refuses the whole file."""

FRAME = 12
"""Bytes of a chunk beside its body: length, name, checksum."""


def without_metadata(content: bytes) -> bytes:
    """A PNG without its metadata; any other file, and a PNG without metadata, as it is.

    What is left out is not looked at, checksums included. From a chunk on that is longer than the
    file, everything is kept: the decoder says what is wrong.
    """
    if not content.startswith(PNG):
        return content
    kept, start, place = [], 0, len(PNG)
    view = memoryview(content)
    while (end := _end_of_chunk(content, place)) <= len(content):
        if content[place + 4 : place + 8] in METADATA:
            kept.append(view[start:place])
            start = end
        place = end
    return b"".join([*kept, view[start:]]) if kept else content


def _end_of_chunk(content: bytes, place: int) -> int:
    """Past the end of the file where no chunk begins."""
    try:
        return int(place + FRAME + unpack_from(">I", content, place)[0])
    except StructError:
        return len(content) + 1
