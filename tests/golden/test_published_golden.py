"""Our pipeline against values that the published implementation computed (see tiny_checkpoints).

Ours run in float64, so that no processor's rounding is compared with that of the published run.
Queries 0, 2, 6, 9 and five images: upright, wide, nearly square, one greyscale; a query with
accents, one in capitals. ``expected.npz`` lists which.
"""

import json
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cir_core.datasets.captions import join_captions
from cir_core.families import load_model, parse_config, require_pair
from cir_core.layers.preprocess import crop_centre, prepare, resize_short_side, square_pad
from cir_core.layers.vision import normalise
from cir_core.layers.wordpiece import TokenBatch, Tokenizer, pad_tokens
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.rerankers.dual.reranker import DualReranker
from cir_core.retrievers.blip.fusion import Stage1Model
from storage.models.folders import read_config, read_tensors
from tasks.models.convert import convert
from tests.support.tiny_checkpoints import (
    GOLDEN,
    MODEL_KEYS,
    save_published,
    tiny_stage1,
    tiny_stage2,
)
from tests.support.tolerances import PUBLISHED_EMBEDDINGS, PUBLISHED_STATES, rounding

pytestmark = pytest.mark.numeric

SIZE = 64
PIXELS = rounding(3, magnitude=3)
"""Bytes are resized in integers; three roundings follow: over 255, less mean, by deviation."""


class Models(NamedTuple):
    stage1: Stage1Model
    stage2: Stage2Model


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(GOLDEN / "expected.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    folder = tmp_path_factory.mktemp("published")
    pickles = {
        "stage1": save_published(folder / "1.pt", tiny_stage1(), MODEL_KEYS["stage1"]),
        "stage2": save_published(folder / "2.pt", tiny_stage2(), MODEL_KEYS["stage2"]),
    }
    for stage, pickle in pickles.items():
        convert(pickle, folder / stage)
    one, two = folder / "stage1", folder / "stage2"
    return Models(
        load_model(parse_config(read_config(one), "stage1"), read_tensors(one), "stage1").double(),
        load_model(parse_config(read_config(two), "stage2"), read_tensors(two), "stage2").double(),
    )


@pytest.fixture(scope="module")
def texts(expected: dict[str, np.ndarray]) -> TokenBatch:
    """The golden queries' token ids; their equality with the published ones is a test below."""
    ids = Tokenizer("bert-base-uncased")(_captions())
    return pad_tokens([ids[query] for query in expected["queries"]])


@pytest.fixture(scope="module")
def image_tokens(models: Models, expected: dict[str, np.ndarray]) -> Tensor:
    with torch.no_grad():
        tokens: Tensor = models.stage1.vision(_pixels(expected).double())
    return tokens


@pytest.fixture(scope="module")
def z_t(
    models: Models, texts: TokenBatch, image_tokens: Tensor, expected: dict[str, np.ndarray]
) -> Tensor:
    images = expected["images"].tolist()
    queries = [_queries()[query] for query in expected["queries"]]
    references = [images.index(query["candidate"]) for query in queries]
    with torch.no_grad():
        return models.stage1.fuse(texts.ids, texts.lengths, image_tokens[references])


def test_target_padding_gives_the_published_pixels(expected: dict[str, np.ndarray]) -> None:
    np.testing.assert_allclose(_pixels(expected), expected["pixels_targetpad"], rtol=0, atol=PIXELS)


def test_square_padding_gives_the_published_pixels(expected: dict[str, np.ndarray]) -> None:
    squares = [
        np.array(crop_centre(resize_short_side(square_pad(image.convert("RGB")), SIZE), SIZE))
        for image in _images(expected)
    ]
    pixels = normalise(torch.from_numpy(np.stack(squares)))
    np.testing.assert_allclose(pixels, expected["pixels_squarepad"], rtol=0, atol=PIXELS)


def test_captions_are_joined_as_published(expected: dict[str, np.ndarray]) -> None:
    assert _captions() == expected["captions"].tolist()


def test_token_ids_are_the_published_ones(expected: dict[str, np.ndarray]) -> None:
    ids = Tokenizer("bert-base-uncased")(_captions())
    assert [len(text) for text in ids] == expected["token_lengths"].tolist()
    assert list(chain.from_iterable(ids)) == expected["token_ids"].tolist()


def test_both_stages_hold_the_same_visual_encoder(models: Models) -> None:
    require_pair(models.stage1, DualReranker(models.stage2))


def test_image_tokens_and_embeddings(
    models: Models, image_tokens: Tensor, expected: dict[str, np.ndarray]
) -> None:
    np.testing.assert_allclose(
        image_tokens, expected["image_tokens"], rtol=0, atol=PUBLISHED_STATES
    )
    with torch.no_grad():
        embeddings = models.stage1.embed_images(image_tokens)
    np.testing.assert_allclose(
        embeddings, expected["image_embeddings"], rtol=0, atol=PUBLISHED_EMBEDDINGS
    )


def test_z_t_and_query_embeddings(
    models: Models, texts: TokenBatch, z_t: Tensor, expected: dict[str, np.ndarray]
) -> None:
    unpadded = torch.cat([rows[:length] for rows, length in zip(z_t, texts.lengths, strict=True)])
    np.testing.assert_allclose(unpadded, expected["z_t"], rtol=0, atol=PUBLISHED_STATES)
    with torch.no_grad():
        embeddings = models.stage1.embed_queries(z_t)
    np.testing.assert_allclose(
        embeddings, expected["query_embeddings"], rtol=0, atol=PUBLISHED_EMBEDDINGS
    )


def test_stage1_scores(
    models: Models, z_t: Tensor, image_tokens: Tensor, expected: dict[str, np.ndarray]
) -> None:
    with torch.no_grad():
        scores = models.stage1.embed_queries(z_t) @ models.stage1.embed_images(image_tokens).T
    np.testing.assert_allclose(scores, expected["stage1_cosine"], rtol=0, atol=PUBLISHED_EMBEDDINGS)


def test_stage2_scores_of_every_query_with_every_image(
    models: Models,
    texts: TokenBatch,
    z_t: Tensor,
    image_tokens: Tensor,
    expected: dict[str, np.ndarray],
) -> None:
    queries, images = len(z_t), len(image_tokens)
    pairs = torch.cartesian_prod(torch.arange(queries), torch.arange(images))
    with torch.no_grad():
        scores = models.stage2.finish(
            models.stage2.begin(z_t, texts.ids, texts.lengths),
            models.stage2.project(image_tokens),
            pairs[:, 0],
            pairs[:, 1],
        )
    found = scores.view(queries, images)
    np.testing.assert_allclose(found, expected["stage2_logits"], rtol=0, atol=PUBLISHED_STATES)


def _queries() -> list[dict[str, Any]]:
    queries: list[dict[str, Any]] = json.loads((GOLDEN / "queries.json").read_text())
    return queries


def _captions() -> list[str]:
    pairs = [query["captions"] for query in _queries()]
    return [join_captions(first, second, "published") for first, second in pairs]


def _images(expected: dict[str, np.ndarray]) -> list[Image.Image]:
    images = []
    for name in expected["images"]:
        with Image.open(GOLDEN / "images" / f"{name}.png") as image:
            images.append(image.copy())
    return images


def _pixels(expected: dict[str, np.ndarray]) -> Tensor:
    return normalise(torch.from_numpy(np.stack([prepare(i, SIZE) for i in _images(expected)])))
