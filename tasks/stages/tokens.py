"""The frozen ViT's image tokens, kept: what training reads every epoch, computed once."""

from pathlib import Path

from cir_core.training.recipes import StoredPrecision
from storage.artifacts import Made
from tasks.feed.image_tokens import Pictures
from tasks.feed.token_cache import count_kept, keep_tokens
from tasks.models.opening import open_stage1


def encode_tokens(
    store: Path,
    data_root: Path,
    ingested: str,
    stage1: Path,
    *,
    precision: StoredPrecision,
    device: str,
    batch: int,
    workers: int,
) -> Made:
    """The artifact ``tokens`` of stage 1's ViT, as ``keep_tokens`` makes it."""
    pictures = Pictures(store, data_root, ingested, batch, workers)
    return keep_tokens(pictures, open_stage1(stage1).vision.to(device), precision=precision)


def kept_images(pictures: Pictures, stage1: Path) -> int:
    """Of how many images a run finds kept tokens, see ``count_kept``."""
    return count_kept(pictures, open_stage1(stage1).vision)
