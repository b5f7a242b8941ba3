"""Described images of a dataset as what pre-training reads: pixels, and token ids of the texts."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cir_core.datasets.adapter import ReadJson
from cir_core.datasets.descriptions import Described, Describing, parse_described
from cir_core.datasets.near_names import ImageNames
from cir_core.datasets.registry import Dataset
from cir_core.datasets.selection import KeptOut, keep_out
from cir_core.errors import ImageProblem, PreflightError, ProblemsFound, UsageError
from cir_core.layers.config import TextConfig
from cir_core.layers.preprocess import Preprocess
from cir_core.layers.wordpiece import Tokenizer, tokenizer_of
from cir_core.training.pretrain import DescribedImages
from cir_core.types import ImageId
from storage.sources.annotations import AnnotationReader
from storage.sources.images import Folders, decode_image
from storage.sources.roots import open_root

PROBLEMS_SHOWN = 10
WORDS_SHOWN = 10

_log = logging.getLogger(__name__)


def read_described(
    root: Path, dataset: Dataset, protocol: str, text: TextConfig, pictures: Preprocess
) -> DescribedImages:
    """What may be pre-trained on: the described images that are not kept out to select on, which
    the dataset's queries tell, prepared as ``pictures`` says. Says how many words the vocabulary
    does not have.

    Raises UsageError for a vocabulary larger than the model, PreflightError for a dataset without
    descriptions, or with none that may be trained on, AnnotationError listing what is wrong with a
    table, and ProblemsFound listing unusable images.
    """
    adapter = dataset.adapter
    if not isinstance(adapter, Describing) or adapter.descriptions is None:
        raise PreflightError(
            "there are no described images to pre-train on",
            item=f"dataset {dataset.name}",
            cause="no table descriptions.csv, .jsonl or .parquet was found",
            remedy="docs/training.md tells what it holds; or convert published weights",
        )
    tokenizer = tokenizer_of(text)
    if tokenizer.vocabulary_size > text.vocabulary_size:
        raise UsageError(
            f"the vocabulary {text.vocabulary} has {tokenizer.vocabulary_size} words, and the base "
            f"model places for {text.vocabulary_size}",
            remedy=f"set vocabulary_size = {tokenizer.vocabulary_size} below [base.text] in the "
            "recipe",
        )
    read = AnnotationReader(root).read
    split = dataset.parse("train", dataset.adapter.categories, read, dataset.protocol(protocol))
    kept = keep_out(split)
    described = _parse(root, adapter, read, kept, tokenizer, text.positions)
    if not described.texts:
        raise PreflightError(
            "there are no described images to pre-train on",
            item=adapter.descriptions,
            cause="all that it names are kept out to select checkpoints on",
            remedy="describe more images",
        )
    entries = described.entries
    _tell_unknown(tokenizer, text, described)
    files = {image: adapter.described_files(image) for image in described.texts}
    return DescribedImages(
        pixels=_read_pixels(Folders(root, split.folders), files, pictures, adapter.descriptions),
        descriptions=[tokenizer(list(texts)) for texts in described.texts.values()],
        catalogue=None if entries is None else tokenizer([entries[one] for one in files]),
    )


def _parse(
    root: Path,
    adapter: Describing,
    read: ReadJson,
    kept: KeptOut,
    tokenizer: Tokenizer,
    positions: int,
) -> Described:
    file, catalogue = adapter.descriptions or "", adapter.catalogue
    has_catalogue = catalogue is not None and open_root(root).is_file(catalogue)
    return parse_described(
        (file, read(file)),
        (catalogue, read(catalogue)) if catalogue is not None and has_catalogue else None,
        ImageNames(read(adapter.images).images if adapter.images is not None else ()),
        kept,
        lambda texts: [len(ids) for ids in tokenizer(list(texts))],
        positions,
    )


def _tell_unknown(tokenizer: Tokenizer, config: TextConfig, described: Described) -> None:
    texts: Iterable[str] = (text for mine in described.texts.values() for text in mine)
    texts = [*texts, *(described.entries or {}).values()]
    words = tokenizer.words(texts)
    unknown = Counter({word: words[word] for word in tokenizer.unknown(words)})
    if not unknown:
        return
    told = ", ".join(f"{word!r} ({times})" for word, times in unknown.most_common(WORDS_SHOWN))
    _log.warning(
        "%d of %d words (%.1f %% of the text) are not in the vocabulary %s and are spelled letter "
        "by letter, or lost: %s. For another one write, in the recipe, [base.text] vocabulary = "
        '"bert-base-uncased" and vocabulary_size = 30524',
        len(unknown), len(words), 100 * unknown.total() / words.total(), config.vocabulary, told,
    )  # fmt: skip


def _read_pixels(
    folders: Folders, files: Mapping[ImageId, Sequence[str]], pictures: Preprocess, table: str
) -> Tensor:
    """Raises ProblemsFound naming every image that is missing or broken."""
    pixels = np.empty((len(files), *pictures.shape), dtype=np.uint8)
    problems = []
    for row, places in zip(pixels, files.values(), strict=True):
        try:
            relative = folders.find(places)
            row[:] = pictures.crop(decode_image(folders.read(relative), relative))
        except ImageProblem as problem:
            problems.append(f"{problem.item}: {problem.kind}")
    if problems:
        raise ProblemsFound(
            f"{len(problems)} of {len(files)} described images cannot be used",
            item=", ".join(problems[:PROBLEMS_SHOWN]),
            remedy=f"repair them, or take them out of {table}",
        )
    return torch.from_numpy(pixels)
