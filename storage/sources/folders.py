"""What lies below a user's folder of images: which files are read, and why others are not."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cir_core.errors import AnnotationError, ImageProblem, PreflightError
from cir_core.picture_files import SYSTEM_FOLDERS, is_read, is_unread
from cir_core.types import ImageId, Listing


@dataclass
class _Found:
    """Paths below the folder, in the order of the walk."""

    images: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)
    links: list[tuple[str, str]] = field(default_factory=list)
    problems: list[ImageProblem] = field(default_factory=list)

    def listing(self) -> Listing:
        return Listing(
            tuple(map(ImageId, sorted(self.images))),
            unread=tuple(sorted(self.unread)),
            passed_over=tuple(sorted(self.passed_over)),
            links=tuple(sorted(self.links)),
            problems=tuple(sorted(self.problems, key=lambda problem: problem.item)),
        )


def list_images(folder: Path) -> Listing:
    """All image files below a folder, by their names' ends.

    Passed over are names that begin with a dot and stores of this pipeline, silently, and folders
    that systems make. A link to a folder that stands in ``folder`` itself is followed wherever it
    leads; those further down, and those that lead back into the folder, are not. Raises
    AnnotationError listing the image names that are not UTF-8, and PreflightError when the folder
    itself cannot be listed.
    """
    found = _Found()
    starts = [""]
    for start in starts:  # which grow: by the links at the top
        for below, folders, files in _walk(folder, start, found):
            if "artifacts" in folders and "lock" in files:
                folders.clear()
                continue
            folders[:] = [name for name in folders if not _is_passed_over(below + name, found)]
            links = [name for name in folders if (folder / below / name).is_symlink()]
            starts += [f"{below}{name}/" for name in links if _follows(folder, below + name, found)]
            seen = [below + name for name in files if not name.startswith(".")]
            found.images += filter(is_read, seen)
            found.unread += filter(is_unread, seen)
    _require_utf8(found.images, folder)
    return found.listing()


def _walk(folder: Path, start: str, found: _Found) -> Iterator[tuple[str, list[str], list[str]]]:
    """As ``os.walk``, from ``start`` on; each place as the beginning of the paths in it: empty, or
    with a slash at its end. A place below ``folder`` that cannot be listed is a problem."""

    def note(error: OSError) -> None:
        place = os.path.relpath(error.filename, folder)
        if place == ".":
            told = str(error)
            raise PreflightError("a folder cannot be listed", item=str(folder), cause=told)
        kind = "denied" if isinstance(error, PermissionError) else "io_error"
        cause = error.strerror or str(error)
        found.problems.append(
            ImageProblem(kind, "a folder cannot be listed", item=_told(place), cause=cause)
        )

    for place, folders, files in os.walk(folder / start, onerror=note):
        below = os.path.relpath(place, folder)
        yield "" if below == "." else f"{below}/", folders, files


def _is_passed_over(path: str, found: _Found) -> bool:
    name = os.path.basename(path)
    if name.lower() in SYSTEM_FOLDERS:
        found.passed_over.append(path)
        return True
    return name.startswith(".")


def _follows(folder: Path, path: str, found: _Found) -> bool:
    """Whether a link to a folder is to be walked; the others are told."""
    home, target = folder.resolve(), (folder / path).resolve()
    if target.is_relative_to(home) or home.is_relative_to(target):
        found.links.append((path, str(target)))
    elif "/" in path:
        cause = f"the link leads to {_told(str(target))}"
        found.problems.append(
            ImageProblem(
                "unsafe_path", "a link leads out of the folder", item=_told(path), cause=cause
            )
        )
    else:
        return True
    return False


def _require_utf8(names: list[str], folder: Path) -> None:
    wrong = sorted(ascii(name) for name in names if _told(name) != name)
    if wrong:
        raise AnnotationError(
            f"{len(wrong)} image files have names that are not UTF-8",
            item=f"{folder}: {', '.join(wrong)}",
            remedy="rename them: a name is an image's id",
        )


def _told(path: str) -> str:
    """A path as text, its bytes that are not UTF-8 escaped."""
    return path.encode(errors="backslashreplace").decode()
