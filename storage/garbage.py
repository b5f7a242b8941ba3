"""What of a store no finished run needs, and how it goes: manifests first, so that a removal that
is killed leaves nothing that is half believed."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter

from cir_core.errors import UsageError
from storage.atomic import is_abandoned
from storage.labels import FOLDER as LABELS
from storage.parts import MANIFEST, RECEIPT
from storage.sittings import FOLDER as SITTINGS
from storage.store import Store
from storage.survey import Key, Survey, Surveyed
from storage.views import Evaluated, KeptTokens, Pair, Probed, run_id_of


@dataclass(frozen=True)
class Waste:
    """Files that go together, in that order: an artifact's, or a single one; and why they go."""

    item: str
    files: tuple[str, ...]
    bytes: int
    why: str


@dataclass(frozen=True)
class Wish:
    """What else is to go: runs, by their evaluations; what leads to no finished run; kept image
    tokens."""

    runs: Collection[Key] = ()
    interrupted: bool = False
    tokens: bool = False


def finished_runs(found: Survey) -> list[Surveyed]:
    """The evaluations of finished runs, by fingerprint."""
    every = sorted(found.artifacts.values(), key=lambda one: one.fingerprint)
    return [one for one in every if one.stage == Evaluated.stage and one.state == "whole"]


def needed_by(found: Survey, run: Surveyed) -> set[Key]:
    """All that a run was made of, itself, and what was asked beside it."""
    probes = [
        one
        for one in found.artifacts.values()
        if one.stage == Probed.stage and one.inputs.get(Evaluated.stage) == run.fingerprint
    ]
    return _closure(found, [run, *probes])


def garbage(found: Survey, wish: Wish) -> list[Waste]:
    """What goes, dependents before what they were made of. What finished runs need stays, whatever
    is wished, and so does, by itself, what leads to no finished run: it is an interrupted run's, or
    one's that ended before it was evaluated.

    Raises UsageError where a run that is to go calibrates another.
    """
    kept = _needed(found, [run for run in _rooted(found) if run.key not in wish.runs])
    _require_unneeded(found, wish, kept)
    given_up = _needed(found, [found.artifacts[key] for key in wish.runs])
    unfinished = _unfinished(found, kept | given_up)
    if not wish.interrupted:
        kept |= _closure(found, unfinished)
    kept |= _beside(found, kept)
    if wish.tokens:
        kept = {key for key in kept if key[0] != KeptTokens.stage}
    artifacts = [one for one in _dependents_first(found) if one.key not in kept]
    return [
        *(_waste(found, one, _why(one, given_up)) for one in artifacts),
        *_outputs(found, wish.runs),
        *_rests(found, kept),
    ]


def remove(store: Store, waste: Iterable[Waste]) -> None:
    """The files, and the folders that are then empty; the caller holds the store."""
    every = list(waste)
    files = [file for one in every for file in one.files]
    for file in sorted(files, key=_rank):  # a stable sort: dependents stay before their inputs
        store.remove(file)
    for folder in sorted({file.rpartition("/")[0] for file in files}, key=len, reverse=True):
        store.remove_folder(folder)


def _rank(file: str) -> int:
    """Manifests, then receipts, without which no part is believed."""
    return (0 if file.endswith(f"/{MANIFEST}") else 1) if file.endswith((MANIFEST, RECEIPT)) else 2


def _rooted(found: Survey) -> Iterator[Surveyed]:
    """Finished runs, and those of any state that have a label: somebody means to have them."""
    labelled = {name.rpartition("/")[2].removesuffix(".json") for name in found.below(LABELS)}
    for one in found.artifacts.values():
        is_meant = one.state == "whole" or run_id_of(one.fingerprint) in labelled
        if one.stage == Evaluated.stage and is_meant:
            yield one


def _needed(found: Survey, runs: Iterable[Surveyed]) -> set[Key]:
    return {key for run in runs for key in needed_by(found, run)}


def _closure(found: Survey, roots: Iterable[Surveyed]) -> set[Key]:
    known: set[Key] = set()
    left = list(roots)
    while left:
        one = left.pop()
        if one.key not in known:
            known.add(one.key)
            left.extend(found.inputs_of(one))
    return known


def _unfinished(found: Survey, led: Collection[Key]) -> list[Surveyed]:
    """What leads to no finished run, and can be used by one yet."""
    usable = ("whole", "begun", "damaged")
    return [one for one in found.artifacts.values() if one.key not in led and one.state in usable]


def _beside(found: Survey, kept: Collection[Key]) -> set[Key]:
    """Kept image tokens of images that are kept, and the checks of models that are."""
    values = {value for key in kept for value in found.artifacts[key].inputs.values()}
    return {
        one.key
        for one in found.artifacts.values()
        if (one.stage == KeptTokens.stage and one.inputs.get("images") in values)
        or (one.stage == Pair.stage and values & {*one.inputs.values()})
    }


def _require_unneeded(found: Survey, wish: Wish, kept: Collection[Key]) -> None:
    needed = [run_id_of(name) for stage, name in wish.runs if (stage, name) in kept]
    if needed:
        raise UsageError(
            "a run is needed by another, whose K it calibrates",
            item=", ".join(needed),
            remedy="give up the other one, too (`cir-pipeline store ls` tells who needs what)",
        )


def _why(one: Surveyed, given_up: Collection[Key]) -> str:
    if one.key in given_up:
        return "of a run that is given up"
    if one.state == "other version":
        return "of another version, which this one does not read"
    if one.state == "rest":
        return "nothing vouches for it"
    if one.stage == KeptTokens.stage:
        return "kept image tokens, made again where they are asked for"
    return "leads to no finished run"


def _waste(found: Survey, one: Surveyed, why: str) -> Waste:
    """With what its making took; what is not ours stays."""
    sittings = found.below(f"{SITTINGS}/{one.stage}/{one.fingerprint}")
    mine = {f"{one.folder}/{file}": one.files[file] for file in one.ours} | sittings
    return Waste(one.folder, tuple(mine), sum(mine.values()), why)


def _outputs(found: Survey, runs: Collection[Key]) -> Iterator[Waste]:
    """Of runs that are given up: page and label. What was exported stays."""
    for _, fingerprint in runs:
        run_id = run_id_of(fingerprint)
        page, label = found.below(f"reports/{run_id}"), f"{LABELS}/{run_id}.json"
        if page:
            yield Waste(
                f"reports/{run_id}", tuple(page), sum(page.values()), "of a run that is given up"
            )
        if label in found.files:
            yield Waste(label, (label,), found.files[label], "of a run that is given up")


def _rests(found: Survey, kept: Collection[Key]) -> Iterator[Waste]:
    """Single files that are never read."""
    reasons = dict.fromkeys(found.aside, "set aside, damaged")
    reasons |= {name: "left by a killed writer" for name in found.leftovers if is_abandoned(name)}
    for one in found.artifacts.values():
        reasons |= {f"{one.folder}/{file}": "nothing vouches for it" for file in one.strays}
    alone = {
        name: "of an artifact that is not there"
        for name in found.below(SITTINGS)
        if tuple(name.split("/")[1:3]) not in found.artifacts
    }
    for name, why in {**reasons, **alone}.items():
        if found.artifact_of(name) is None or found.artifact_of(name) in kept:
            yield Waste(name, (name,), found.files[name], why)


def _dependents_first(found: Survey) -> list[Surveyed]:
    graph = {key: [one.key for one in found.inputs_of(it)] for key, it in found.artifacts.items()}
    return [found.artifacts[key] for key in reversed([*TopologicalSorter(graph).static_order()])]
