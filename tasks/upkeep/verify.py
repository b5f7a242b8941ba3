"""Whether the bytes of a store, and of models, are those that were written; nothing is written."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cir_core.errors import CheckpointRefused, PreflightError, StoreCorrupt
from storage.atomic import sha256_of
from storage.models.folders import check_identity
from storage.promises import Fault, Note, Promise, promises_of
from storage.store import Store
from storage.survey import Survey, survey
from storage.views import Ingested
from tasks.progress import count

MIB = 2**20


@dataclass(frozen=True)
class Verified:
    """So many files, of so many bytes, were read and compared; small ones that say what others are
    to be are not among them."""

    files: int
    bytes: int
    faults: tuple[Fault, ...]
    notes: tuple[Note, ...]

    @property
    def is_whole(self) -> bool:
        return not self.faults


def verify(store: Store, models: Sequence[Path], shipped: Sequence[Path]) -> Verified:
    """Every file of a store, and the models, are read once and compared with what was promised of
    them. ``models`` were given; ``shipped`` ones are looked at where the store has data that they
    come with. Raises PreflightError where there is no store."""
    found = survey(store)
    if not found.files:
        raise PreflightError(
            "there is no store",
            item=str(store),
            remedy="name another folder with --store; `cir-pipeline run` makes one",
        )
    promises = promises_of(store, found)
    faults = [*promises.faults, *_compared(store, promises.files)]
    notes = [*_holder(store), *promises.notes]
    for folder in models:
        _check_model(folder, _named(found), faults, notes)
    for folder in shipped if _has_demo(found) else ():
        _check_model(folder, None, faults, notes)
    total = sum(one.bytes for one in promises.files.values())
    return Verified(len(promises.files), total, tuple(faults), tuple(notes))


def require_whole(verified: Verified, store: Store) -> None:
    """Raises StoreCorrupt, naming each damaged file and what to do, once each."""
    if verified.is_whole:
        return
    remedies = dict.fromkeys(fault.remedy for fault in verified.faults)
    raise StoreCorrupt(
        f"{len(verified.faults)} files of the store are damaged"
        if len(verified.faults) > 1
        else "a file of the store is damaged",
        item="\n".join(fault.item for fault in verified.faults),
        cause=f"below {store}; what is wrong with each is above",
        remedy="\n".join(remedies),
    )


def _compared(store: Store, files: Mapping[str, Promise]) -> Iterator[Fault]:
    total = sum(one.bytes for one in files.values())
    done = 0
    with count("verifying", total // MIB, "MiB") as counter:
        for name, promise in files.items():
            damage = _damage(store, name, promise)
            if damage:
                yield Fault(name, damage, promise.remedy)
            before, done = done, done + promise.bytes
            counter.update(done // MIB - before // MIB)


def _damage(store: Store, name: str, promise: Promise) -> str:
    """In words; empty where the bytes are those that were written."""
    try:
        found = sha256_of(store.local(name))
    except FileNotFoundError:
        return "it is not there any more"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return "" if found == promise.sha256 else "its bytes are not those that were written"


def _holder(store: Store) -> Iterator[Note]:
    with suppress(PreflightError, OSError):
        holder = store.holder()
        if holder is not None:
            told = f"process {holder} is at work here: what it makes may be found begun"
            yield Note("lock", told)


def _check_model(
    folder: Path, named: set[str] | None, faults: list[Fault], notes: list[Note]
) -> None:
    try:
        identity = check_identity(folder)
    except CheckpointRefused as error:
        faults.append(
            Fault(error.item, ": ".join(filter(None, (error.what, error.cause))), error.remedy)
        )
        return
    if named is not None and identity.sha256 not in named:
        told = "nothing here was made with it: another model, or its config.json has changed since"
        notes.append(Note(str(folder), told))


def _named(found: Survey) -> set[str]:
    """All digests that artifacts name."""
    return {value for one in found.artifacts.values() for value in one.inputs.values()}


def _has_demo(found: Survey) -> bool:
    return any(
        one.stage == Ingested.stage
        and one.manifest is not None
        and one.manifest["identity"]["settings"].get("dataset") == "demo"
        for one in found.artifacts.values()
    )
