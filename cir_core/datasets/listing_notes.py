"""What lies in a folder of images and is not searched, for people to read."""

from collections import Counter
from collections.abc import Iterator

from cir_core.picture_files import SYSTEM_FOLDERS, count_endings
from cir_core.types import Listing

SHOWN = 5
"""Names in a note; its counts are whole."""


def listing_notes(folder: Listing) -> tuple[str, ...]:
    """A line for each kind of thing that is passed over."""
    return tuple(_notes(folder))


def _notes(folder: Listing) -> Iterator[str]:
    if folder.unread:
        look = (
            "1 file looks like a picture and is"
            if len(folder.unread) == 1
            else (f"{len(folder.unread)} files look like pictures and are")
        )
        first = first_few([repr(path) for path in folder.unread])
        yield f"{look} not read: {count_endings(folder.unread)}; save as JPEG or PNG: {first}"
    if folder.passed_over:
        counts = Counter(path.rpartition("/")[2] for path in folder.passed_over)
        told = [
            f"{count} {name} ({SYSTEM_FOLDERS[name.lower()]})" for name, count in counts.items()
        ]
        yield f"folders that systems make are passed over: {', '.join(told)}"
    if folder.links:
        told = [f"{link!r} to {target!r}" for link, target in folder.links]
        yield (
            f"{len(folder.links)} links to folders are not followed, since they lead to where the "
            f"images are: {first_few(told)}"
        )


def first_few(told: list[str]) -> str:
    """Some of them on one line, and how many there are besides."""
    more = [f"... and {len(told) - SHOWN} more"] if len(told) > SHOWN else []
    return ", ".join([*told[:SHOWN], *more])
