"""Which ids and texts can be kept byte for byte, and which ids a file system may confuse."""

from collections.abc import Iterable
from unicodedata import normalize


def text_fault(text: str) -> str:
    """Why a text cannot be kept and written again byte for byte; empty when it can.

    NUL ends a string in too many of the tools that read our tables, and half a surrogate pair has
    no UTF-8. Everything else is kept: control characters, any direction, any length.
    """
    if "\0" in text:
        return "holds a NUL character"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "is not UTF-8 text"
    return ""


def path_fault(image_id: str) -> str:
    """Why an id cannot be the path of a file below a folder, written plainly; empty when it can."""
    if image_id.startswith("/"):
        return "is an absolute path"
    parts = image_id.split("/")
    if ".." in parts:
        return "leaves the folder"
    if "" in parts or "." in parts:
        return "is not written plainly (a/b.jpg)"
    return ""


def twins(ids: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of ids that differ in case or Unicode form alone, so that some file systems (macOS,
    Windows) take them for one; each id beside the first that is like it."""
    first: dict[str, str] = {}
    pairs = []
    for image in ids:
        like = first.setdefault(folded(image), image)
        if like != image:
            pairs.append((like, image))
    return pairs


def folded(text: str) -> str:
    """The same for all texts that differ in case or Unicode form alone."""
    if text.isascii():
        return text.lower()
    return normalize("NFC", normalize("NFC", text).casefold())
