"""What the bytes of a store are to be, as manifests, receipts and sums say, and what of these
cannot be believed. Reads the small files that say it, and no other; writes nothing."""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from storage.atomic import is_abandoned, leftover_in
from storage.catalog import CATALOG_FILE
from storage.labels import FOLDER as LABELS
from storage.labels import parse_label
from storage.parts import MANIFEST, RECEIPT
from storage.products import SUMS, sums_in
from storage.sittings import FOLDER as SITTINGS
from storage.sittings import parse_sitting
from storage.store import Store
from storage.survey import Survey, Surveyed, content_of

RECEIPT_OF_FILES = ".sha256"

PREFECT = "prefect"
"""Prefect's home, where it has no other; its files are its own."""

UNCHECKED = ("exports", "ablations", "reports", "data", CATALOG_FILE)
"""At a store's top, what this package writes and not all of which has a receipt."""

_OURS = re.compile(
    r"lock|lease\.json|format\.json|locks/[0-9a-f]+|cir\.duckdb\.wal|cir-unsaved-\d+\.duckdb(\.wal)?"
    r"|[^.].*\.sha256|.+/SHA256SUMS"
    r"|labels/[0-9a-f]+\.json|sittings/[^/]+/[0-9a-f]+/[^/]+\.json"
    r"|artifacts/[^/]+/[0-9a-f]+/(manifest\.json|[^/.][^/]*\.(parquet|npy|receipt\.json|damaged))"
)
"""Files that this package writes, and that are told of elsewhere or have nothing to tell."""

AGAIN = (
    "repeat the command that made it (cir-pipeline run): damaged parts are made anew, and what is "
    "sound is kept"
)
ALL_AGAIN = "repeat the command that made it (cir-pipeline run): its artifact is made anew"
OUTPUT = (
    "repeat the command that made it (cir-pipeline run; of a page `cir-pipeline report`): it is "
    "written anew, and what somebody has changed in it is lost"
)
LABEL = "delete it, and name the run again (`cir-pipeline runs name`, `runs tag`)"
SITTING = "delete it: what a stage took is then not known, and nothing depends on it"


@dataclass(frozen=True)
class Fault:
    """What is damaged, in which way, and what to do."""

    item: str
    damage: str
    remedy: str


@dataclass(frozen=True)
class Note:
    """What is worth knowing of an item, and no damage."""

    item: str
    told: str


@dataclass(frozen=True)
class Promise:
    """The bytes that a file is to have, and what to do where it has others."""

    bytes: int
    sha256: str
    remedy: str


@dataclass(frozen=True)
class Promises:
    """``files`` are those whose bytes are yet to be compared, by name."""

    files: dict[str, Promise] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def expect(self, name: str, there: int | None, promise: Promise) -> None:
        """Have a file's bytes compared, if it can be seen from its size that they may be right."""
        if there is None:
            self.faults.append(Fault(name, "it is not there", promise.remedy))
        elif there != promise.bytes:
            told = f"it has {there:,} bytes, and {promise.bytes:,} were written"
            self.faults.append(Fault(name, told, promise.remedy))
        else:
            self.files[name] = promise


def promises_of(store: Store, found: Survey) -> Promises:
    """All that a store promises. What is only begun, left, set aside, or not ours, is a note."""
    made = Promises()
    for one in found.artifacts.values():
        _expect_artifact(made, one)
        made.notes.extend(_notes_of(found, one))
    _read_each(made, store, found.below(LABELS), parse_label, LABEL)
    _read_each(made, store, found.below(SITTINGS), parse_sitting, SITTING)
    _expect_outputs(made, store, found)
    aside = "set aside as damaged, to be looked at; `store gc` removes it"
    made.notes.extend(Note(name, aside) for name in found.aside)
    left = "left by a writer that was killed; `store gc` removes it"
    made.notes.extend(Note(name, left) for name in found.leftovers if is_abandoned(name))
    made.notes.extend(_strangers(made, found))
    return made


def _expect_artifact(made: Promises, one: Surveyed) -> None:
    if one.fault:
        made.faults.append(Fault(f"{one.folder}/{MANIFEST}", one.fault, ALL_AGAIN))
    for part, receipt in one.receipts.items():
        if receipt is None:
            damage = "its checksum is another, or it is none"
            made.faults.append(Fault(f"{one.folder}/{part}{RECEIPT}", damage, AGAIN))
    for part, told in one.parts.items():
        file, promise = one.stored[part], Promise(told["bytes"], told["sha256"], AGAIN)
        made.expect(f"{one.folder}/{file}", one.files.get(file), promise)


def _notes_of(found: Survey, one: Surveyed) -> Iterator[Note]:
    if one.state == "begun":
        yield Note(one.folder, f"begun only: {len(one.parts)} parts; the same command goes on")
    if one.state == "other version":
        yield Note(one.folder, "another version's: left out, and made again where it is needed")
    told = "nothing vouches for it: it is never read, and `store gc` removes it"
    yield from (Note(f"{one.folder}/{file}", told) for file in one.strays)
    if one.state == "whole" and one.manifest is not None:
        for role, content in one.manifest["sources"].items():
            yield from _note_of_source(found, one, role, content)


def _note_of_source(found: Survey, one: Surveyed, role: str, content: str) -> Iterator[Note]:
    source = found.artifacts.get((role, one.inputs.get(role, "")))
    if source is None or source.state in ("begun", "rest"):
        yield Note(one.folder, f"what it was made of is not there: {role}/{one.inputs.get(role)}")
    elif source.state == "whole" and content_of(source) != content:
        told = f"made of other bytes than {source.folder} has now: its run makes it again"
        yield Note(one.folder, told)


def _read_each(
    made: Promises, store: Store, files: dict[str, int], parse: Callable[[str], Any], remedy: str
) -> None:
    """Files that vouch for themselves."""
    for name in files:
        try:
            parse(store.read_text(name))
        except (OSError, ValueError, LookupError, TypeError) as error:
            made.faults.append(Fault(name, _cause(error), remedy))


def _expect_outputs(made: Promises, store: Store, found: Survey) -> None:
    """What receipts name; then what the sums name that are themselves named by one."""
    outside = [name for name in found.files if not name.startswith(("artifacts/", f"{PREFECT}/"))]
    for name in outside:
        if name.endswith(RECEIPT_OF_FILES):
            _expect_sums(made, store, found, name)
    for name in outside:
        if name.rpartition("/")[2] == SUMS:
            _expect_sums(made, store, found, name)


def _expect_sums(made: Promises, store: Store, found: Survey, name: str) -> None:
    own = made.files.pop(name, None)  # sums that a receipt names: compared here
    try:
        text = store.read_text(name)
        if own is not None and hashlib.sha256(text.encode()).hexdigest() != own.sha256:
            raise ValueError("its bytes are not those that were written")  # noqa: TRY301
        sums = sums_in(text)
    except (OSError, ValueError) as error:
        made.faults.append(Fault(name, _cause(error), OUTPUT))
        return
    folder = name.rpartition("/")[0]
    for file, sha256 in sums.items():
        path = f"{folder}/{file}" if folder else file
        there = found.files.get(path)
        made.expect(path, there, Promise(there or 0, sha256, OUTPUT))


def _strangers(made: Promises, found: Survey) -> Iterator[Note]:
    """Files whose bytes nobody has promised: ours, by their folders, and others."""
    known = {*made.files, *(fault.item for fault in made.faults)}
    unchecked = Counter[str]()
    for name in found.files:
        if name in known or _OURS.fullmatch(name) or leftover_in(name):
            continue
        top, *below = name.split("/")
        if top in UNCHECKED:
            unchecked["/".join([top, *below[:-1][:1]])] += 1
        elif top != PREFECT:
            yield Note(name, "not ours: it is left alone")
    for folder, files in unchecked.items():
        yield Note(folder, f"not checked, since no receipt names it: {files:,} files")


def _cause(error: Exception) -> str:
    return f"it lacks {error}" if isinstance(error, LookupError) else str(error)
