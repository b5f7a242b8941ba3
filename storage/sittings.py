"""What the making of artifacts took: a small file for each sitting, beside the artifacts.

``sittings/<stage>/<fingerprint>/<began>-<process>.json``. Information alone: no name, no manifest
and no ``is_done`` depends on it, and a store without is whole. An artifact that several runs share
was made once, and its sittings tell of that making.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from json import loads

from pydantic import TypeAdapter, ValidationError

from storage import manifests
from storage.artifacts import Artifact

FOLDER = "sittings"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sitting:
    """One stretch of work on one artifact, by one process or several that it started.

    ``began_at`` is ISO 8601 in UTC. Until ``is_ended``, it was recorded while the work went on, and
    after a kill it tells of the work up to then. ``is_first``: nothing of the artifact was there.
    ``seconds`` are wall time; where ``together`` names several stages, they were made in one pass,
    and these are this stage's share. ``images``, ``queries``, ``pairs`` and ``flops`` (counted by
    the models' formulas, 0 where a stage has none) are those of the ``parts`` that were committed;
    beside them, ``copied`` were taken from earlier artifacts, whose sittings tell what they took:
    pairs of a stage that scores, queries of one that fuses, else images. An older record says
    nothing of it, and nothing was taken then.
    ``peak_memory``: the most resident bytes, summed over all processes; ``peak_gpu_memory``: the
    most that one process has allocated on its GPU, None without one. ``threads`` are each
    process's; ``tokens`` is the fingerprint of the kept image tokens that were read, if any were.
    """

    began_at: str
    is_first: bool
    is_ended: bool
    seconds: float
    together: tuple[str, ...]
    images: int
    queries: int
    pairs: int
    flops: int
    parts: int
    peak_memory: int
    peak_gpu_memory: int | None
    device: str
    processor: str
    cores: int
    threads: int
    processes: int
    workers: int
    batch: int
    tokens: str | None
    made_with: Mapping[str, str]
    copied: int = 0


_FIELDS = {one.name for one in fields(Sitting)}


def record(artifact: Artifact, sitting: Sitting) -> None:
    """Write what is known of a sitting of this process, in the place of what was. Raises as
    ``Store.put``."""
    began = sitting.began_at.replace(":", "")  # which is no sign of a name everywhere
    name = f"{_folder(artifact)}/{began}-{os.getpid()}.json"
    artifact.store.put_text(name, manifests.seal(asdict(sitting)))


def sittings_of(artifact: Artifact) -> list[Sitting]:
    """Those that made the artifact, in the order of their beginnings; none where nobody recorded
    any. What is older than the last that found nothing there made one that was deleted since. A
    file that cannot be read is left out with a warning."""
    folder = _folder(artifact)
    every = [
        sitting
        for name in artifact.store.names(folder)
        if (sitting := _read(artifact, f"{folder}/{name}")) is not None
    ]
    first = max((place for place, one in enumerate(every) if one.is_first), default=0)
    return every[first:]


def _read(artifact: Artifact, name: str) -> Sitting | None:
    try:
        return parse_sitting(artifact.store.read_text(name))
    except (FileNotFoundError, ValueError) as error:
        told = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        _log.warning("what a stage took is not known: %s: %s", artifact.store.told(name), told)
        return None


def parse_sitting(text: str) -> Sitting:
    """What ``record`` has written. Raises ValueError of what is none, or has other bytes; an older
    version's has no checksum."""
    kept = loads(text)
    if not isinstance(kept, dict) or not kept.keys() <= _FIELDS:
        manifests.unseal(text)
    return _parser().validate_json(text)


@cache  # made in a millisecond, as long as a dozen files take
def _parser() -> TypeAdapter[Sitting]:
    return TypeAdapter(Sitting)


def _folder(artifact: Artifact) -> str:
    return f"{FOLDER}/{artifact.stage}/{artifact.fingerprint}"
