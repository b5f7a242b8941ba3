"""Image tokens kept in the store, and the choice between them and computing them again."""

import hashlib
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from cir_core.errors import ImageProblem, OutOfSpace
from cir_core.layers.config import VisionConfig
from cir_core.layers.preprocess import TARGET_RATIO
from cir_core.layers.vision import VisionTransformer
from cir_core.training.recipes import StoredPrecision
from cir_core.types import Keeping
from storage import schemas
from storage.artifacts import Artifact, Identity, Made
from tasks.feed.image_tokens import Pictures, Plan, Seen, compute_tokens
from tasks.feed.lookahead import prepared
from tasks.feed.upload import Upload
from tasks.progress import count
from tasks.shards import shard_name, shards

VERSION = 2
SHARD = 256
"""Images per part: 222 MiB of 577 x 768 tokens in fp16."""

_DTYPES = {"fp32": np.float32, "fp16": np.float16}

_log = logging.getLogger(__name__)


class KeptTokens:
    """The artifact ``tokens``, mapped into memory: what is asked for is read, in fp32."""

    def __init__(self, store: Path, fingerprint: str) -> None:
        artifact = Artifact(store, "tokens", fingerprint)
        self._parts = artifact.map_arrays("tokens")
        self._size = max(1, len(self._parts[0]))
        self.problems = {
            str(row["item"]): ImageProblem(row["kind"], row["message"])
            for row in artifact.read("problems").to_pylist()
        }

    @property
    def shape(self) -> tuple[int, ...]:
        """Tokens and width of an image."""
        return self._parts[0].shape[1:]

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __getitem__(self, rows: Tensor) -> Tensor:
        found = torch.empty((len(rows), *self.shape))
        self.read(rows.numpy(), found.numpy())
        return found

    def read(self, rows: np.ndarray, out: Float[np.ndarray, "image token width"]) -> None:
        """Fill ``out`` with the tokens of these rows; those of unusable images are 0."""
        part = rows // self._size
        for number in np.unique(part):
            mine = part == number
            out[mine] = self._parts[number][rows[mine] - number * self._size]


@contextmanager
def see_images(
    pictures: Pictures, vision: VisionTransformer, plan: Plan, *, tokens: Keeping
) -> Iterator[Iterator[Seen]]:
    """Each batch of the plan, in order; the next ones are decoded, or read, while the last is used.

    With kept tokens no file is opened. Tokens of all pictures are kept, not of candidates
    alone: encoding needs all, and so another K, protocol, text or stage 2 finds what it needs. In
    fp32, since fp16 would change scores. Raises as ``feed_pixels``, and OutOfSpace as
    ``keep_tokens``.
    """
    kept = None if tokens == "recompute" else _find_kept(pictures, vision, make=tokens == "cache")
    with (
        _read(pictures, kept, vision.cls_token.device, plan)
        if kept
        else compute_tokens(pictures, vision, plan)
    ) as seen:
        yield seen


def count_kept(pictures: Pictures, vision: VisionTransformer) -> int:
    """Of how many images ``see_images`` finds the tokens: of all, or what an interrupted run left,
    which ``cache`` goes on from."""
    artifact = Artifact.of(pictures.store, _identity(pictures, vision, "fp32"))
    images = pictures.table().num_rows
    if artifact.is_done:
        return images
    return images - sum(map(len, _missing(artifact, images)))


def _find_kept(pictures: Pictures, vision: VisionTransformer, *, make: bool) -> KeptTokens | None:
    identity = _identity(pictures, vision, "fp32")
    artifact = Artifact.of(pictures.store, identity)
    if not artifact.is_done:
        if not make:
            return None
        _keep(pictures, vision, identity, "fp32")
    _log.info("image tokens are read from %s", artifact.folder)
    return KeptTokens(pictures.store, artifact.fingerprint)


@contextmanager
def _read(
    pictures: Pictures, kept: KeptTokens, device: torch.device, plan: Plan
) -> Iterator[Iterator[Seen]]:
    upload = Upload(device)
    ids = pictures.table()["image_id"].to_pylist()
    problems = {row: kept.problems[one] for row, one in enumerate(ids) if one in kept.problems}

    def make(rows: Sequence[int]) -> Seen:
        usable = [row for row in rows if row not in problems]
        buffer = upload.buffer(len(usable), *kept.shape, dtype=torch.float32)
        kept.read(np.array(usable, dtype=int), buffer.numpy())
        mine = {row: problems[row] for row in rows if row in problems}
        return Seen(usable, upload.send(buffer), mine)

    with prepared(make, plan) as made:
        yield (replace(seen, tokens=upload.claim(seen.tokens)) for seen in made)


def keep_tokens(
    pictures: Pictures, vision: VisionTransformer, *, precision: StoredPrecision
) -> Made:
    """The artifact ``tokens``: arrays tokens-<shard> [image, token, width], a row for every
    picture, and problems-<shard> with the images that cannot be decoded (their rows are 0).

    The models of both stages share a ViT, and so these tokens: they are named by the ViT, not by
    the model. Says the size before starting. Raises OutOfSpace when the disk cannot hold it.
    """
    identity = _identity(pictures, vision, precision)
    reused = Artifact.of(pictures.store, identity).is_done
    if not reused:
        _keep(pictures, vision, identity, precision)
    return Made(identity.fingerprint, reused)


def _identity(
    pictures: Pictures, vision: VisionTransformer, precision: StoredPrecision
) -> Identity:
    """Named by the ViT alone, its sizes included: what the tokens depend on."""
    digest = hashlib.sha256(vision.config.model_dump_json().encode())
    for tensor in vision.state_dict().values():
        digest.update(tensor.cpu().numpy().tobytes())
    return Identity(
        stage="tokens",
        version=VERSION,
        settings={"target_ratio": TARGET_RATIO, "precision": precision},
        inputs={"images": pictures.images_sha256(), "vision": digest.hexdigest()},
    )


def _keep(
    pictures: Pictures, vision: VisionTransformer, identity: Identity, precision: StoredPrecision
) -> None:
    artifact = Artifact.of(pictures.store, identity)
    ids = pictures.distinct.copies
    names = {rows: shard_name(rows) for rows in shards(len(ids), SHARD)}
    plans = {rows: pictures.plan(rows) for rows in _missing(artifact, len(ids))}
    _announce(pictures.store, vision.config, sum(map(len, plans)), precision)
    plan = list(chain.from_iterable(plans.values()))
    with (
        compute_tokens(pictures, vision, plan) as seen,
        count("image tokens", len(ids), "images", done=len(ids) - sum(map(len, plans))) as counter,
    ):
        for rows, batches in plans.items():
            tokens, problems = _collect(islice(seen, len(batches)), rows, ids, vision.config)
            array, listed = _parts(names[rows])
            artifact.write_array(array, tokens.astype(_DTYPES[precision], copy=False))
            artifact.write_part(listed, problems)
            counter.update(len(rows))
    artifact.finish(identity, [part for name in names.values() for part in _parts(name)])


def _missing(artifact: Artifact, images: int) -> list[range]:
    """The rows whose tokens are not kept."""
    return [
        rows
        for rows in shards(images, SHARD)
        if not all(artifact.has_part(part) for part in _parts(shard_name(rows)))
    ]


def _parts(name: str) -> tuple[str, str]:
    return f"tokens-{name}.npy", f"problems-{name}"


def _collect(
    batches: Iterator[Seen], rows: range, ids: list[list[str]], config: VisionConfig
) -> tuple[np.ndarray, pa.Table]:
    tokens = np.zeros((len(rows), config.tokens, config.width), dtype=np.float32)
    problems = []
    for seen in batches:
        tokens[np.array(seen.rows, dtype=int) - rows.start] = seen.tokens.float().cpu().numpy()
        problems += [problem.row(one) for row, problem in seen.problems.items() for one in ids[row]]
    return tokens, pa.Table.from_pylist(problems, schemas.PROBLEMS)


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
            remedy="free space, move the store with --store, or compute them again each time: "
            "--tokens recompute, in training --features recompute",
        )
    _log.info("keeping image tokens: %s", told)
