"""What conversions tell of what they wrote."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ConvertedModel:
    """A converted model on disk, and the sha256 of its weights file, or of the tensors in files
    that were linked. ``dropped`` names what of the source was left out, ``added`` what was made
    anew for the target."""

    path: Path
    kind: str
    parameters: int
    sha256: str
    dropped: tuple[str, ...]
    added: tuple[str, ...] = ()
