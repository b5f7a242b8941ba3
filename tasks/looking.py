"""What another machine has of what a run needs, as a process on it sees that."""

import hashlib
import os
import platform
from dataclasses import dataclass
from importlib.resources import files
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import psutil

from storage.manifests import versions
from storage.store import Store
from tasks.machine import VISIBLE

LOOK = "tasks.looking:look"
"""For ``Child``."""

PACKAGES = ("cir_core", "storage", "tasks", "flows")


@dataclass(frozen=True)
class Question:
    """The folder from which relative names are meant, the store, a name in it and its text, which
    other files and folders are needed, and whether a GPU is."""

    folder: Path
    store: Store
    name: str
    text: str
    needed: tuple[Path, ...]
    on_gpu: bool


class Seen(NamedTuple):
    """On which host, with which versions and code, how many bytes of memory are free, what cannot
    be seen of what is needed, and which GPU is its own (None: none is to be, or there is none)."""

    host: str
    made_with: dict[str, str]
    free: int
    unseen: tuple[str, ...]
    gpu: str | None


def look(channel: int) -> None:
    """Answer one ``Question`` by a ``Seen``."""
    with Connection(channel) as asking:
        asking.send(see(asking.recv()))


def see(question: Question) -> Seen:
    """From here."""
    enter(question.folder)
    unseen = [str(path) for path in question.needed if not path.exists()]
    if not _can_use_store(question):
        unseen.insert(0, str(question.store))
    return Seen(
        platform.node(),
        made_with(),
        psutil.virtual_memory().available,
        tuple(unseen),
        _gpu() if question.on_gpu else None,
    )


def enter(folder: Path) -> None:
    """Stand in the folder where the command was given, if it is here: where names are not relative
    it need not be."""
    if folder.is_dir():
        os.chdir(folder)


def made_with() -> dict[str, str]:
    """Versions, and a digest of our own code, whose version says little while it is written."""
    digest = hashlib.sha256()
    for package in PACKAGES:
        root = Path(str(files(package)))
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return {**versions(), "code": digest.hexdigest()[:12]}


def _can_use_store(question: Question) -> bool:
    """Whether it is the same store, not another folder of that name, and can be written."""
    try:
        is_the_same = question.store.read_text(question.name) == question.text
    except (OSError, ValueError):
        return False
    return is_the_same and question.store.is_writable


def _gpu() -> str | None:
    """The first that this process may use, by its name to CUDA."""
    import torch

    if not torch.cuda.is_available():
        return None
    return (os.environ.get(VISIBLE) or "0").split(",")[0]
