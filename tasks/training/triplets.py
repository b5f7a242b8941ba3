"""A training split as triplets: which queries may be trained on, over which image tokens."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from cir_core.datasets.listing_notes import first_few
from cir_core.datasets.registry import Dataset
from cir_core.datasets.selection import keep_out, training_queries
from cir_core.errors import PreflightError
from cir_core.layers.config import TextConfig
from cir_core.layers.vision import FrozenEncoder
from cir_core.layers.wordpiece import tokenizer_of
from cir_core.retrievers.blip.fusion import Stage1Model
from cir_core.training.triplets import ImageTokens, Triplets
from cir_core.types import Benchmark, CaptionRule, ImageId, QueryId
from storage.sources.annotations import AnnotationReader
from storage.views import Ingested, KeptTokens
from tasks.feed.decode import ImageFile
from tasks.feed.pictures import distinct_pictures
from tasks.feed.pixels import image_files, load_pixels
from tasks.feed.token_cache import TokenCache

_log = logging.getLogger(__name__)


class RecomputedTokens:
    """Decoded and encoded anew whenever a step asks: no disk, and the cost of a ViT per image."""

    def __init__(self, root: Path, files: list[ImageFile], vision: FrozenEncoder) -> None:
        self._root, self._files, self._vision = root, files, vision.eval()

    def __len__(self) -> int:
        return len(self._files)

    @torch.no_grad()
    def __getitem__(self, rows: Tensor) -> Tensor:
        asked = [self._files[row] for row in rows.tolist()]
        loaded = load_pixels(self._root, asked, self._vision.pictures)
        for problem in loaded.problems.values():
            raise problem
        return self._vision.see(loaded.pixels.to(self._vision.device))


def read_triplets(
    data_root: Path,
    dataset: Dataset,
    source: Ingested,
    tokens: KeptTokens | None,
    stage1: Stage1Model,
    captions: Sequence[CaptionRule],
) -> Triplets:
    """The ingested training split without the queries that are kept out to select on.

    Image tokens are those of the artifact ``tokens``, or, without one, computed when asked.
    Queries of unusable images are left out, and those with a wording that is longer than stage 1
    reads: log lines count and name them. Raises PreflightError when none is left.
    """
    pictures = distinct_pictures(source.read("images"))
    files = image_files(pictures.table)
    wordings = _parse(data_root, dataset, source, captions)
    first = wordings[0]
    row = {ImageId(one): index for index, ids in enumerate(pictures.copies) for one in ids}
    for image in _undecodable(tokens):
        row.pop(image, None)
    shown = [
        index
        for index, query in enumerate(first.queries)
        if query.reference_id in row and query.targets and query.targets[0] in row
    ]
    wordings_of = _token_ids(stage1.config.text, wordings, shown)
    positions = stage1.config.text.positions
    unread = {index for index in shown if max(map(len, wordings_of[index])) > positions}
    usable = [index for index in shown if index not in unread]
    named = [first.queries[index].query_id for index in sorted(unread)]
    _tell_left_out(len(first.queries) - len(shown), named, len(usable))
    categories = list(first.galleries)
    queries = [first.queries[index] for index in usable]
    return Triplets(
        image_tokens=_image_tokens(data_root, files, tokens, stage1),
        reference=_rows(row, [query.reference_id for query in queries]),
        target=_rows(row, [query.targets[0] for query in queries]),
        category=torch.tensor([categories.index(query.category) for query in queries]),
        galleries=[
            _rows(row, [image for image in gallery if image in row])
            for gallery in first.galleries.values()
        ],
        token_ids=[wordings_of[index] for index in usable],
        origin=_origin(source, tokens),
    )


def data_digest(
    data_root: Path,
    dataset: Dataset,
    source: Ingested,
    tokens: KeptTokens,
    stage1: Stage1Model,
    captions: Sequence[CaptionRule],
) -> str:
    """That of ``read_triplets`` over these tokens, which need not be kept any more: then their
    images count as decodable. Raises as it does."""
    kept = tokens if tokens.is_done else None
    found = read_triplets(data_root, dataset, source, kept, stage1, captions)
    return replace(found, origin=_origin(source, tokens)).digest()


def _origin(source: Ingested, tokens: KeptTokens | None) -> str:
    return f"{source.digest('images')} {tokens.fingerprint if tokens else 'recomputed'}"


def _parse(
    root: Path, dataset: Dataset, source: Ingested, captions: Sequence[CaptionRule]
) -> list[Benchmark]:
    """The split once per caption rule; query by query they differ in the text alone."""
    settings = source.identity()["settings"]
    protocol = dataset.protocol(settings["protocol"])
    annotations = AnnotationReader(root)  # every rule reads the same files
    rules = [replace(protocol, captions=rule) for rule in captions]
    splits = [
        dataset.parse("train", settings["categories"], annotations.read, rule) for rule in rules
    ]
    _require_ingested(annotations, source, root)
    _tell_kept_out(splits[0])
    return [training_queries(split) for split in splits]


def _tell_kept_out(split: Benchmark) -> None:
    kept = keep_out(split)
    what = "groups" if kept.whole else "single images"
    groups = len(set(kept.group_of.values()))
    _log.info("to select on, %d of %d %s are kept out", len(kept.groups), groups, what)


def _require_ingested(annotations: AnnotationReader, source: Ingested, root: Path) -> None:
    """Raises PreflightError naming the files that no longer hold what was ingested."""
    ingested = source.identity()["inputs"]
    changed = [
        str(root / file)
        for file, sha256 in annotations.sha256.items()
        if sha256 not in (ingested.get(file), ingested.get(sha256))
    ]
    if changed:
        raise PreflightError(
            "annotation files have changed since they were ingested",
            item=", ".join(changed),
            cause="something writes to the data root",
            remedy="run the same command again once the data root is at rest",
        )


def _undecodable(tokens: KeptTokens | None) -> list[ImageId]:
    if tokens is None:
        return []
    return [ImageId(one) for one in tokens.read("problems")["item"].to_pylist()]


def _tell_left_out(unseen: int, unread: Sequence[QueryId], usable: int) -> None:
    """``unseen`` are queries of unusable images, ``unread`` those whose text is too long."""
    if not usable:
        raise PreflightError(
            "there is no training query that is usable",
            cause=f"{unseen} queries name an image that is missing or broken, and the texts of "
            f"{len(unread)} are longer than the model reads",
            remedy="check the data root: `cir-pipeline doctor`",
        )
    if unseen:
        _log.warning("%d training queries are left out: an image of theirs is unusable", unseen)
    if unread:
        _log.warning(
            "%d training queries are left out: their texts are longer than the model reads: %s",
            len(unread), first_few(list(unread)),
        )  # fmt: skip


def _image_tokens(
    root: Path, files: list[ImageFile], tokens: KeptTokens | None, stage1: Stage1Model
) -> ImageTokens:
    if tokens is None:
        return RecomputedTokens(root, files, stage1.vision)
    return TokenCache(tokens)


def _token_ids(
    config: TextConfig, wordings: list[Benchmark], asked: Sequence[int]
) -> dict[int, list[list[int]]]:
    """The distinct wordings of each query that is asked, in the order of the rules, never
    truncated."""
    texts = {
        index: list(dict.fromkeys(wording.queries[index].text for wording in wordings))
        for index in asked
    }
    ids = iter(tokenizer_of(config)(list(chain.from_iterable(texts.values()))))
    return {index: [next(ids) for _ in mine] for index, mine in texts.items()}


def _rows(row: Mapping[ImageId, int], images: Sequence[ImageId]) -> Tensor:
    return torch.tensor([row[image] for image in images], dtype=torch.long)
