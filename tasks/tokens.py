"""The frozen ViT's image tokens, kept: what training reads every epoch, computed once."""

import hashlib
import logging
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from cir_core.errors import OutOfSpace
from cir_core.images import TARGET_RATIO, normalise
from cir_core.models.config import VisionConfig
from cir_core.models.vision import VisionTransformer
from cir_core.training.recipes import StoredPrecision
from storage import schemas
from storage.artifacts import Artifact, Identity, Made
from tasks.models import open_stage1
from tasks.pixels import ImageFile, image_files, load_pixels
from tasks.progress import count, shard_name, shards

VERSION = 1
SHARD = 256
"""Images per part: 222 MiB of 577 x 768 tokens in fp16."""

_log = logging.getLogger(__name__)


def encode_tokens(
    store: Path,
    data_root: Path,
    ingested: str,
    stage1: Path,
    *,
    precision: StoredPrecision,
    device: str,
    batch: int,
) -> Made:
    """The artifact ``tokens``: arrays tokens-<shard> [image, token, width], a row for every
    ingested image, and problems-<shard> with the images that cannot be decoded (their rows are 0).

    The models of both stages share a ViT, and so these tokens: they are named by the ViT, not by
    the model. Says the size before starting. Raises OutOfSpace when the disk cannot hold it.
    """
    source = Artifact(store, "ingest", ingested)
    identity = Identity(
        stage="tokens",
        version=VERSION,
        settings={"target_ratio": TARGET_RATIO, "precision": precision},
        inputs={"images": source.identity()["inputs"]["images"], "vision": _vision_sha256(stage1)},
    )
    artifact = Artifact.of(store, identity)
    if artifact.is_done:
        return Made(identity.fingerprint, reused=True)
    files = image_files(source.read("images"))
    vision = open_stage1(stage1).vision.to(device)
    names = {rows: f"{shard_name(rows)}" for rows in shards(len(files), SHARD)}
    missing = [rows for rows, name in names.items() if not _is_there(artifact, name)]
    _announce(store, vision.config, sum(map(len, missing)), precision)
    with count("image tokens", len(files), "images") as counter:
        for rows, name in names.items():
            if rows in missing:
                mine = [files[row] for row in rows]
                tokens, problems = _encode(vision, data_root, mine, batch)
                artifact.write_array(f"tokens-{name}.npy", tokens.astype(_DTYPES[precision]))
                artifact.write_part(f"problems-{name}", problems)
            counter.update(len(rows))
    parts = [part for name in names.values() for part in _parts(name)]
    artifact.finish(identity, parts)
    return Made(identity.fingerprint, reused=False)


_DTYPES = {"fp32": np.float32, "fp16": np.float16}


def _vision_sha256(stage1: Path) -> str:
    """Of the ViT alone, its sizes included: what the tokens depend on."""
    vision = open_stage1(stage1).vision
    digest = hashlib.sha256(vision.config.model_dump_json().encode())
    for tensor in vision.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _parts(name: str) -> tuple[str, str]:
    return f"tokens-{name}.npy", f"problems-{name}"


def _is_there(artifact: Artifact, name: str) -> bool:
    return all(artifact.has_part(part) for part in _parts(name))


def _announce(store: Path, config: VisionConfig, images: int, precision: StoredPrecision) -> None:
    width = np.dtype(_DTYPES[precision]).itemsize
    needed = images * config.tokens * config.width * width
    store.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(store).free
    told = (
        f"{needed / 2**30:.2f} GiB ({images} images x {config.tokens} tokens x {config.width} in "
        f"{precision}) of {free / 2**30:.1f} GiB free"
    )
    if needed > free:
        raise OutOfSpace(
            "the image tokens do not fit on the disk",
            item=str(store),
            cause=told,
            remedy="free space, move the store with --store, or pass --features recompute",
        )
    _log.info("keeping image tokens: %s", told)


@torch.no_grad()
def _encode(
    vision: VisionTransformer, root: Path, files: list[ImageFile], batch: int
) -> tuple[np.ndarray, pa.Table]:
    config, device = vision.config, vision.cls_token.device
    tokens = np.zeros((len(files), config.tokens, config.width), dtype=np.float32)
    problems = []
    for start in range(0, len(files), batch):
        asked = files[start : start + batch]
        loaded = load_pixels(root, asked, config.image_size)
        problems += [one.row(asked[row].image_id) for row, one in loaded.problems.items()]
        if loaded.rows:
            found = vision(normalise(loaded.pixels.to(device))).float().cpu().numpy()
            tokens[[start + row for row in loaded.rows]] = found
    return tokens, pa.Table.from_pylist(problems, schemas.PROBLEMS)
