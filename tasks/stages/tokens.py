"""The frozen ViT's image tokens, kept: what training reads every epoch, and repeated re-ranking
each time, computed once."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cir_core.errors import OutOfSpace
from cir_core.layers.preprocess import Preprocess
from cir_core.planning.disk import FLOAT, Counts
from cir_core.planning.effort import Effort, Forecast, together
from cir_core.ports import ImageEncoder, Widths
from cir_core.training.recipes import StoredPrecision
from storage import schemas
from storage.arrays import ARRAY_SUFFIX
from storage.store import Store
from storage.views import Ingested, KeptTokens
from tasks.feed.image_tokens import Pictures, Seen, compute_tokens
from tasks.machine import Machine
from tasks.models.opening import open_encoder, read_seeing_flops
from tasks.progress import count
from tasks.shards import part_name, rows_in
from tasks.stages.earlier.tokens import find_tokens
from tasks.stages.over_pictures import OverPictures
from tasks.stages.stage import ReadyPart, Work

_DTYPES = {"fp32": np.float32, "fp16": np.float16}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tokens(OverPictures[KeptTokens]):
    """Arrays tokens-<shard> [image, token, width], a row for every picture, and problems-<shard>
    with the images that cannot be decoded (their rows are 0).

    The models of both stages share a ViT, and so these tokens: they are named by the ``encoder``,
    not by the model in the ``folder``. Of all pictures, not of candidates alone: encoding needs
    all, and so another K, protocol, text or stage 2 finds what it needs. ``precision`` is what they
    are kept in: a run reads fp32 alone, which holds without loss what an encoder makes in any
    precision, so that kept or not they give the same scores. Raises OutOfSpace, before it starts,
    when the disk cannot hold them.
    """

    encoder: str
    pictures: Preprocess
    precision: StoredPrecision

    makes = KeptTokens
    version = 2

    def settings(self) -> Mapping[str, Any]:
        return {**super().settings(), **self.pictures.settings(), "precision": self.precision}

    def inputs(self) -> Mapping[str, str]:
        return {"images": self.ingested.digest("images"), "vision": self.encoder}

    @contextmanager
    def open(self, machine: Machine) -> Iterator[Work]:
        encoder = open_encoder(self.folder, precision=self.encoder_precision).to(machine.device)
        seeing = read_seeing_flops(self.folder)
        yield partial(self._keep, Pictures(self.ingested, self.root, machine), encoder, seeing)

    @staticmethod
    def effort(forecast: Forecast) -> Effort:
        ours = max(0, forecast.to_keep - forecast.left.copied)
        again = max(0, forecast.to_keep_again - forecast.left.copied_again)
        return together([forecast.compute(ours), forecast.compute(again, by="stage2")])

    @staticmethod
    def disk(counts: Counts, widths: Widths) -> int:
        return FLOAT * (widths.image * counts.kept + counts.again)

    def _keep(
        self, pictures: Pictures, encoder: ImageEncoder, seeing: int, shards: Sequence[str]
    ) -> Iterator[ReadyPart]:
        view, known = self.made, find_tokens(self.made, pictures.distinct)
        left = {shard: known.left(rows_in(shard)) for shard in shards}
        plans = {shard: pictures.plan(rows) for shard, rows in left.items()}
        images, missing = sum(len(rows_in(shard)) for shard in shards), sum(map(len, left.values()))
        _announce(self.store, encoder.shape, images, self.precision)
        if missing < images:
            _log.info(
                "tokens of %d of %d images are known from earlier runs", images - missing, images
            )
        total = len(pictures.distinct)
        with (
            compute_tokens(pictures, encoder, list(chain.from_iterable(plans.values()))) as seen,
            count("image tokens", total, "images", done=total - missing) as counter,
        ):
            for shard, batches in plans.items():
                mine = islice(seen, len(batches))
                tokens, problems = _collect(mine, rows_in(shard), pictures, encoder.shape)
                known.fill(tokens, rows_in(shard))
                array = tokens.astype(_DTYPES[self.precision], copy=False)
                effort = Effort(len(left[shard]), flops=seeing * len(left[shard]))
                copied = len(tokens) - len(left[shard])
                part = part_name("tokens", shard) + ARRAY_SUFFIX
                yield ReadyPart(view, part, array, effort, copied=copied)
                yield ReadyPart(view, part_name("problems", shard), problems)
                counter.update(len(left[shard]))


def tokens_of(ingested: Ingested, folder: Path, root: Path, precision: StoredPrecision) -> Tokens:
    """What is kept of a model's encoder, which sees in fp32."""
    return _kept_by(open_encoder(folder), ingested, folder, root, precision)


def tokens_in(stage: OverPictures[Any]) -> Tokens:
    """What may be kept for a stage; opens its model."""
    tokens = tokens_of(stage.ingested, stage.folder, stage.root, "fp32")
    return replace(tokens, encoder_precision=stage.encoder_precision)


def tokens_needed(stage: OverPictures[Any], machine: Machine) -> Sequence[Tokens]:
    """Before a stage sees pictures: their tokens, if they are to be kept."""
    if machine.tokens != "cache":
        return ()
    return [tokens_in(stage)]


def find_kept(pictures: Pictures, encoder: ImageEncoder, folder: Path) -> KeptTokens | None:
    """The tokens that a run may read: those of the folder's encoder, seen in its precision and kept
    in fp32, if they are there and wanted."""
    if pictures.machine.tokens == "recompute":
        return None
    tokens = _kept_by(encoder, pictures.ingested, folder, pictures.root, "fp32")
    kept = replace(tokens, encoder_precision=encoder.precision).made
    return kept if kept.is_done else None


def _kept_by(
    encoder: ImageEncoder, ingested: Ingested, folder: Path, root: Path, precision: StoredPrecision
) -> Tokens:
    store, name, pictures = ingested.store, encoder.digest, encoder.pictures
    return Tokens(store, ingested, folder, root, name, pictures, precision)


def _collect(
    batches: Iterator[Seen], rows: range, pictures: Pictures, shape: tuple[int, ...]
) -> tuple[np.ndarray, pa.Table]:
    ids = pictures.distinct.copies
    tokens = np.zeros((len(rows), *shape), dtype=np.float32)
    problems = []
    for seen in batches:
        tokens[np.array(seen.rows, dtype=int) - rows.start] = seen.tokens.float().cpu().numpy()
        problems += [problem.row(one) for row, problem in seen.problems.items() for one in ids[row]]
    return tokens, pa.Table.from_pylist(problems, schemas.PROBLEMS)


def _announce(
    store: Store, shape: tuple[int, ...], images: int, precision: StoredPrecision
) -> None:
    width = np.dtype(_DTYPES[precision]).itemsize
    needed = images * prod(shape) * width
    free = store.free
    told = (
        f"{needed / 2**30:.2f} GiB ({images} images x {' x '.join(map(str, shape))} in "
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
