"""The vision-language scorer against transformers' own forward of the plain prompt."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedTokenizerFast
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from cir_core.errors import ImageProblem, NonFiniteError
from cir_core.layers.smart_resize import SmartResize
from cir_core.ports import FusedQueries, Load
from cir_core.rerankers.vlm.forms import FORMS, Form
from cir_core.rerankers.vlm.model import VlmModel, load_vlm
from cir_core.rerankers.vlm.reranker import VlmReranker
from cir_core.rerankers.vlm.scorer import VlmScorer, numbers_per_token
from tests.support.tiny_vlm import TEMPLATE, Kind, tiny_net, tiny_tokenizer, vlm_config

CPU = torch.device("cpu")
TEXTS = ["is blue", "has long sleeves, and no <|im_end|> of it", "is blue"]
SIZES = [(60, 40), (33, 90), (17, 20), (64, 64), (3, 5)]
KINDS: tuple[Kind, ...] = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
ASKED: list[tuple[Kind, str]] = [
    ("qwen2_vl", "candidate-first"),
    ("qwen2_5_vl", "lamra"),
    ("qwen3_vl", "qwen3-vl-reranker"),
    ("qwen3_vl", "candidate-first"),
]

pytestmark = pytest.mark.slow


def photos() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for width, height in SIZES
    ]


@dataclass(frozen=True)
class States:
    """``References``: query after query, its own photo."""

    seen: Tensor
    of_query: np.ndarray

    def states(self, references: np.ndarray) -> Tensor:
        return self.seen[torch.from_numpy(references)]


@cache
def model_of(kind: Kind, form: str) -> VlmModel:
    tokens = tiny_tokenizer()
    net = tiny_net(kind, tokens)
    config = vlm_config(net, FORMS[form], tokens)
    return load_vlm(config, net.state_dict(), "a test")


def see(model: VlmModel) -> Tensor:
    crops = [model.config.pictures.crop(one) for one in photos()]
    return model.encoder.see(torch.from_numpy(np.stack(crops)))


REFERENCES = np.array([3, 0, 1])


def queries(model: VlmModel, seen: Tensor, texts: list[str] = TEXTS) -> FusedQueries:
    references = States(seen, REFERENCES)
    return FusedQueries.of([], model.config.tokenizer()(texts), references=references)


def opened(model: VlmModel, seen: Tensor, memory: int | None = None) -> VlmScorer:
    asked = queries(model, seen)
    return VlmScorer(model, asked, device=CPU, memory=memory, precision="fp32")


def processor(model: VlmModel) -> Any:
    limits, vision = model.config.pixels, model.config.vision
    return Qwen2VLImageProcessorPil(
        size={"shortest_edge": limits.least, "longest_edge": limits.most},
        image_mean=limits.mean,
        image_std=limits.std,
        patch_size=vision["patch_size"],
        merge_size=vision["spatial_merge_size"],
        temporal_patch_size=vision["temporal_patch_size"],
    )


@torch.inference_mode()
def plain_score(model: VlmModel, form: Form, text: str, reference: int, candidate: int) -> float:
    """One prompt, both pictures' pixels, the whole forward, and the logits of the last token."""
    net, tokens = model.net, tiny_tokenizer()
    shown = {"reference": photos()[reference], "candidate": photos()[candidate]}
    pictures = processor(model)([shown[one] for one in form.pictures], return_tensors="pt")
    reading = PreTrainedTokenizerFast(tokenizer_object=tokens)
    prompt = str(
        reading.apply_chat_template(
            form.filled(text), chat_template=TEMPLATE, add_generation_prompt=True, tokenize=False
        )
    )
    pad = "<|image_pad|>"
    first, *rest = prompt.split(pad)
    counts = pictures["image_grid_thw"].prod(dim=1) // 4
    whole = first + "".join(
        pad * int(n) + part for n, part in zip(counts.tolist(), rest, strict=True)
    )
    ids = reading(whole, return_tensors="pt", add_special_tokens=False)["input_ids"]
    kinds = (ids == net.config.image_token_id).int()
    logits = net(input_ids=ids, mm_token_type_ids=kinds, **pictures).logits[0, -1]
    yes, no = (tokens.token_to_id(word) for word in (form.yes, form.no))
    return float(logits[yes] - logits[no])


@pytest.mark.parametrize(("kind", "form"), ASKED)
def test_a_score_is_transformers_own_of_the_plain_prompt(kind: Kind, form: str) -> None:
    model = model_of(kind, form)
    seen = see(model)
    scorer = opened(model, seen)
    images = scorer.prepare(seen)
    query, image = np.array([0, 0, 2, 2]), np.array([2, 4, 1, 2])
    found = scorer.score(images, query, image)
    expected = [
        plain_score(model, FORMS[form], TEXTS[one], REFERENCES[one], candidate)
        for one, candidate in zip(query, image, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.ptp(found) > 1e-3, "pairs differ"


@pytest.mark.parametrize(("kind", "form"), ASKED)
def test_scores_are_of_their_pairs_alone_whatever_the_batch(kind: Kind, form: str) -> None:
    model = model_of(kind, form)
    seen = see(model)
    scorer = opened(model, seen)
    query, image = (axis.ravel() for axis in np.indices((3, 5)))
    every = scorer.score(scorer.prepare(seen), query, image)
    drawn = np.random.default_rng(0).permutation(15)
    again = scorer.score(scorer.prepare(seen), query[drawn], image[drawn])
    np.testing.assert_allclose(again, every[drawn], rtol=0, atol=1e-5)
    smallest = opened(model, seen, memory=4 * numbers_per_token(model.config))
    alone = smallest.score(smallest.prepare(seen[2:4]), np.array([1, 1]), np.array([1, 0]))
    np.testing.assert_allclose(alone, every[[5 + 3, 5 + 2]], rtol=0, atol=1e-5)
    empty = np.array([], dtype=int)
    assert scorer.score([], empty, empty).shape == (0,)


def test_blocks_are_halved_when_memory_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("qwen3_vl", "lamra")
    seen = see(model)
    scorer = opened(model, seen)
    pairs = np.array([0, 1, 2]), np.array([0, 0, 0])
    expected = scorer.score(scorer.prepare(seen), *pairs)
    whole, sizes = scorer._last_states, []

    def tight(rows: Any, beginning: Any) -> Tensor:
        sizes.append(len(rows))
        if len(rows) > 1:
            raise torch.OutOfMemoryError
        return whole(rows, beginning)

    monkeypatch.setattr(scorer, "_last_states", tight)
    found = scorer.score(scorer.prepare(seen), *pairs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert sizes == [3, 1, 1, 1]


def test_a_text_that_spells_a_special_token_is_text() -> None:
    config = model_of("qwen3_vl", "lamra").config
    (ids,) = config.tokenizer()(["<|image_pad|>"])
    assert config.prompt.image not in ids


def test_a_score_that_is_no_number_is_refused() -> None:
    model = model_of("qwen2_vl", "lamra")
    seen = see(model)
    scorer = opened(model, seen)
    seen = torch.cat([seen[:, :1], seen[:, 1:] * torch.nan], dim=1)  # sides are in the first row
    with pytest.raises(NonFiniteError, match="stage 2 scores"):
        scorer.score(scorer.prepare(seen), np.array([0]), np.array([0]))


# --- pictures


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_are_prepared_as_transformers_prepares_them(kind: Kind) -> None:
    model = model_of(kind, "lamra")
    encoder, pictures = model.encoder, model.config.pictures
    for photo in photos():
        theirs = processor(model)([photo], return_tensors="pt")
        packed = pictures.unpack(pictures.crop(photo))
        ours = encoder.patches(torch.from_numpy(packed))
        grid = theirs["image_grid_thw"][0].tolist()
        assert [1, packed.shape[0] // 4, packed.shape[1] // 4] == grid
        torch.testing.assert_close(ours, theirs["pixel_values"], rtol=0, atol=1e-5)


def test_no_picture_is_larger_than_its_buffer() -> None:
    for pictures in (SmartResize(28), SmartResize(32, min_pixels=4096, max_pixels=4096)):
        assert pictures.shape == (1 + pictures.most_cells, pictures.size**2, 3)
        for width, height in [(1, 200), (4000, 20), (1, 1), (9000, 9000), (1000, 33), (50, 13)]:
            rows, columns = pictures.cells(width, height)
            assert rows * columns <= pictures.most_cells
    with pytest.raises(ImageProblem, match="too long"):
        SmartResize(28).cells(201, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_seen_the_same_alone_and_among_others(kind: Kind) -> None:
    model = model_of(kind, "lamra")
    crops = torch.from_numpy(np.stack([model.config.pictures.crop(one) for one in photos()]))
    seen = model.encoder.see(crops)
    assert seen.shape == (5, *model.encoder.shape)
    for row in range(5):
        torch.testing.assert_close(
            model.encoder.see(crops[row : row + 1])[0], seen[row], rtol=0, atol=1e-5
        )
    assert model.encoder.see(crops[:0]).shape == (0, *model.encoder.shape)


def test_another_weight_of_the_encoder_gives_another_name() -> None:
    tokens = tiny_tokenizer()
    net = tiny_net("qwen3_vl", tokens)
    config = vlm_config(net, FORMS["lamra"], tokens)
    copies = [{name: one.clone() for name, one in net.state_dict().items()} for _ in range(2)]
    first, second = (load_vlm(config, tensors, "a test").encoder for tensors in copies)
    assert first.digest == second.digest
    assert first.differing(second) == []
    with torch.no_grad():
        second.visual.merger.linear_fc1.bias.add_(1)
    assert first.digest != second.digest
    assert first.differing(second) == ["merger.linear_fc1.bias"]
    assert first.differing(model_of("qwen2_vl", "lamra").encoder) == ["sizes"]


# --- what it costs


def counted(work: Callable[[], object]) -> int:
    with (
        torch.inference_mode(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        work()
    return int(counter.get_total_flops())


@pytest.mark.parametrize(("kind", "form"), ASKED)
def test_a_config_counts_what_torch_counts(kind: Kind, form: str) -> None:
    """Of pictures of the largest size, and texts of one length, so that there is no padding."""
    model = model_of(kind, form)
    config, pictures = model.config, model.config.pictures
    rows, columns = _sides(pictures.most_cells)
    cell = pictures.size
    packed = np.zeros((2, *pictures.shape), dtype=np.uint8)
    packed[:, 0].reshape(2, -1)[:, [0, 2]] = rows, columns
    whole = torch.from_numpy(packed)
    assert pictures.unpack(packed[0]).shape == (rows * cell, columns * cell, 3)
    windows = kind != "qwen2_5_vl" or (rows % 2, columns % 2) == (0, 0)
    seeing = counted(lambda: model.encoder.see(whole))
    assert seeing == 2 * config.seeing_flops() if windows else seeing < 2 * config.seeing_flops()
    seen = model.encoder.see(whole)
    references = States(seen, np.zeros(3, dtype=int))
    ids = config.tokenizer()(["is red", "is red"])
    asked = FusedQueries.of([], ids, references=references)
    scorer = VlmScorer(model, asked, device=CPU, memory=None, precision="fp32")
    images, query, image = scorer.prepare(seen), np.array([0, 1, 0]), np.array([0, 0, 1])
    scorer.score(images, query, image)
    load = Load.of(asked.lengths[query], image, images=2)
    assert counted(lambda: scorer.score(images, query, image)) == config.scoring_flops(load)
    nothing = Load.of(np.array([], dtype=int), np.array([], dtype=int), images=3)
    assert config.scoring_flops(nothing) == 0
    shared = config.scoring_flops(load) + config.beginning_flops(asked.lengths)
    assert shared <= config.plain_flops(load)


def _sides(cells: int) -> tuple[int, int]:
    rows = max(one for one in range(1, int(cells**0.5) + 1) if cells % one == 0)
    return rows, cells // rows


def test_the_golden_pair_is_asked_before_anything_else(caplog: pytest.LogCaptureFixture) -> None:
    """Random weights know no answer: one of the two kinds of line is told, with both scores."""
    model = model_of("qwen3_vl", "lamra")
    caplog.set_level("INFO")
    asked = queries(model, see(model))
    VlmReranker(model).open(asked, device=CPU, memory=None, precision="fp32")
    assert sum("golden pair" in line for line in caplog.messages) == 1
