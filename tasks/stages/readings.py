"""What ingesting hands on beside its artifact: how the files looked that it read."""

from collections.abc import Mapping
from dataclasses import dataclass

from cir_core.types import ImageId
from storage.artifacts import Made
from storage.sources.looks import Looks


@dataclass(frozen=True)
class Ingested(Made):
    """``looks`` are of every annotation file and image; ``searched`` maps a folder all of whose
    images are in the gallery to these."""

    looks: Looks
    searched: Mapping[str, tuple[ImageId, ...]]
