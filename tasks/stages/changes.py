"""Which inputs have changed since they were used? Asked when all results are written."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cir_core.errors import CirError, StoreFailing
from storage.models.folders import model_files, model_sha256
from storage.sources.looks import Looks
from storage.sources.roots import Root
from storage.views import Pair
from tasks.stages.ingest import Reading


def look_at_models(**folders: Path) -> dict[str, Looks]:
    """By stage, how its model's files look before any of them is read. Raises CheckpointRefused for
    what is no model."""
    looks = {stage: Looks(folder) for stage, folder in folders.items()}
    for look in looks.values():
        for name in model_files(look.where):
            look.note(name)
    return looks


@dataclass(frozen=True)
class Noted:
    """Files that are read whole, as they were before: how they looked, and their bytes."""

    looks: Looks
    bytes_names: Mapping[str, str]

    def changed(self) -> tuple[str, ...]:
        """Those that hold other bytes now."""
        return tuple(
            name
            for name in self.looks.differing()
            if _bytes_name(self.looks.root, name) != self.bytes_names[name]
        )


def note_files(files: Iterable[Path]) -> Noted:
    """Look at files before they are read."""
    looks, names = Looks(Path()), {}
    for file in map(str, files):
        looks.note(file)
        names[file] = _bytes_name(looks.root, file)
    return Noted(looks, names)


def find_changed(reading: Reading, pair: Pair, models: Mapping[str, Looks]) -> tuple[str, ...]:
    """Images, annotation files and models' folders that no longer hold what the results are of,
    and folders to which an image came that the gallery lacks; paths, each once.

    Asks the system how each file looks (100,000 in two to three seconds) and reads only those that
    look otherwise than before they were used.
    """
    changed = [*_changed_files(reading), *_grown_folders(reading)]
    changed += [
        str(look.where)
        for stage, look in models.items()
        if look.differing() and _model_name(look.where) != pair.digest(stage)
    ]
    return tuple(changed)


def _changed_files(reading: Reading) -> list[str]:
    differing = reading.looks.differing()
    if not differing:
        return []
    images = reading.ingested.read("images", ["path", "sha256"]).to_pylist()
    inputs = reading.ingested.identity()["inputs"]
    used = {**inputs, **{row["path"]: row["sha256"] for row in images}}
    root = reading.looks.root
    bytes_names = {name: _bytes_name(root, name) for name in differing}
    return [
        root.told(name)
        for name, now in bytes_names.items()
        if (name in used and now != used[name])
        or (os.path.isabs(name) and now not in inputs)  # a table that lies elsewhere
    ]


def _grown_folders(reading: Reading) -> list[str]:
    grown = []
    for folder, images in reading.searched.items():
        root, known = reading.looks.root, frozenset(images)
        try:
            came = sum(image not in known for image in root.images(folder).images)
        except CirError as error:
            grown.append(f"{root.told(folder)} ({error.what})")
        else:
            grown += [f"{root.told(folder)} (images that came: {came})"] if came else []
    return grown


def _bytes_name(root: Root, relative: str) -> str:
    """Empty for what is no regular file any more, or cannot be read."""
    try:
        return sha256(root.read(relative)).hexdigest() if root.is_file(relative) else ""
    except (OSError, StoreFailing):
        return ""


def _model_name(folder: Path) -> str:
    try:
        return model_sha256(folder)
    except CirError:
        return ""
