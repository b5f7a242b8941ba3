"""What a store holds, artifact by artifact, and how many bytes of it which run needs."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from storage.garbage import finished_runs, needed_by
from storage.labels import read_label
from storage.store import Store
from storage.survey import Key, State, Survey, survey
from storage.views import run_id_of

ARTIFACTS = "artifacts"


@dataclass(frozen=True)
class ListedArtifact:
    """``rows`` are of all ``parts``. ``runs``, by their names or ids, need it; none do what an
    interrupted run has left, and what was kept for others."""

    stage: str
    fingerprint: str
    state: State
    parts: int
    rows: int
    bytes: int
    runs: tuple[str, ...]


@dataclass(frozen=True)
class StageUse:
    """What the artifacts of a stage take."""

    stage: str
    artifacts: int
    bytes: int


@dataclass(frozen=True)
class RunUse:
    """What a run needs: bytes that it alone does, and others."""

    run_id: str
    name: str | None
    own: int
    shared: int


@dataclass(frozen=True)
class Usage:
    """``beside`` are the files beside artifacts, by what is at the store's top. ``unneeded`` is
    what no finished run needs of the artifacts. ``free`` bytes are there for more."""

    bytes: int
    free: int
    stages: tuple[StageUse, ...]
    beside: Mapping[str, int]
    runs: tuple[RunUse, ...]
    unneeded: int


def list_artifacts(store: Store) -> list[ListedArtifact]:
    """By stage and fingerprint."""
    found = survey(store)
    needs = _needs(found)
    called = {run: _called(store, run) for run in needs}
    return [
        ListedArtifact(
            *one.key,
            state=one.state,
            parts=len(one.parts),
            rows=one.rows,
            bytes=one.bytes,
            runs=tuple(called[run] for run, mine in needs.items() if one.key in mine),
        )
        for _, one in sorted(found.artifacts.items())
    ]


def measure(store: Store) -> Usage:
    """Sums of bytes."""
    found = survey(store)
    needs = _needs(found)
    sizes = {key: one.bytes for key, one in found.artifacts.items()}
    needing = Counter(key for mine in needs.values() for key in mine)
    return Usage(
        bytes=sum(found.files.values()),
        free=store.free,
        stages=_by_stage(sizes),
        beside=_beside(found),
        runs=tuple(
            RunUse(
                run_id_of(run),
                read_label(store, run_id_of(run)).name,
                own=sum(sizes[key] for key in mine if needing[key] == 1),
                shared=sum(sizes[key] for key in mine if needing[key] > 1),
            )
            for run, mine in needs.items()
        ),
        unneeded=sum(size for key, size in sizes.items() if not needing[key]),
    )


def _needs(found: Survey) -> dict[str, set[Key]]:
    """Of each finished run, by its evaluation's fingerprint."""
    return {run.fingerprint: needed_by(found, run) for run in finished_runs(found)}


def _called(store: Store, run: str) -> str:
    return read_label(store, run_id_of(run)).name or run_id_of(run)


def _by_stage(sizes: Mapping[Key, int]) -> tuple[StageUse, ...]:
    artifacts = Counter(stage for stage, _ in sizes)
    sums = Counter[str]()
    for (stage, _), size in sizes.items():
        sums[stage] += size
    return tuple(StageUse(stage, artifacts[stage], sums[stage]) for stage in sorted(artifacts))


def _beside(found: Survey) -> dict[str, int]:
    """Files of an artifact's folder that are below no fingerprint are there under ``artifacts``."""
    mine = {f"{one.folder}/{file}" for one in found.artifacts.values() for file in one.files}
    sums = Counter[str]()
    for name, size in found.files.items():
        if name not in mine:
            sums[name.partition("/")[0]] += size
    return dict(sorted(sums.items()))
