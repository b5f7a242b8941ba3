"""The models: padding, shortcuts and batches change nothing; configs and tensors are strict."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cir_core.errors import CheckpointRefused, NonFiniteError
from cir_core.families import (
    load_model,
    load_reranker,
    load_retriever,
    load_strictly,
    parse_config,
    require_pair,
)
from cir_core.layers.vision import VisionTransformer
from cir_core.rerankers.dual.config import Stage2Config
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.rerankers.dual.reranker import DualReranker
from cir_core.retrievers.blip.config import Stage1Config
from cir_core.retrievers.blip.fusion import Stage1Model
from tests.support.tiny_models import TEXT, VISION, fill, stage2_config, tiny_stage1, tiny_stage2
from tests.support.tolerances import LAW

pytestmark = pytest.mark.numeric

ANY_ID = 99
"""Stands where padding stands: a real word, so that reading it would show."""

ONE, TWO = tiny_stage1(), tiny_stage2()
EXACT_ONE, EXACT_TWO = tiny_stage1().double(), tiny_stage2().double()
"""In which the laws are tested."""

LENGTHS = st.lists(st.integers(2, 9), min_size=1, max_size=4)
PADDING = st.integers(0, 6)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images(count: int, seed: int = 5) -> Tensor:
    return drawn(seed, count, VISION.tokens, VISION.width)


def texts(lengths: list[int]) -> list[Tensor]:
    """Word ids of each text; the words of text i do not depend on the other texts."""
    return [
        torch.from_numpy(np.random.default_rng((7, row)).integers(0, 180, length))
        for row, length in enumerate(lengths)
    ]


def padded(rows: list[Tensor], extra: int, value: float) -> Tensor:
    longest = max(len(row) for row in rows) + extra
    batch = torch.full((len(rows), longest, *rows[0].shape[1:]), value, dtype=rows[0].dtype)
    for target, row in zip(batch, rows, strict=True):
        target[: len(row)] = row
    return batch


@given(LENGTHS, PADDING)
@settings(deadline=None)
def test_z_t_does_not_depend_on_padding_or_the_batch(lengths: list[int], extra: int) -> None:
    words, references = texts(lengths), images(len(lengths))
    with torch.inference_mode():
        together = EXACT_ONE.fuse(padded(words, extra, ANY_ID), torch.tensor(lengths), references)
        for row, length in enumerate(lengths):
            alone = EXACT_ONE.fuse(words[row][None], torch.tensor([length]), references[[row]])
            np.testing.assert_allclose(together[row, :length], alone[0], rtol=0, atol=LAW)


@given(LENGTHS, PADDING)
@settings(deadline=None)
def test_stage_2_does_not_depend_on_padding_or_the_batch(lengths: list[int], extra: int) -> None:
    words, candidates = texts(lengths), images(len(lengths))
    z_t = [drawn(row, length, TEXT.width) for row, length in enumerate(lengths)]
    with torch.inference_mode():
        together = EXACT_TWO(
            padded(z_t, extra, 50.0),
            padded(words, extra, ANY_ID),
            torch.tensor(lengths),
            candidates,
        )
        alone = [
            EXACT_TWO(z[None], ids[None], torch.tensor([len(ids)]), candidates[[row]])
            for row, (z, ids) in enumerate(zip(z_t, words, strict=True))
        ]
    np.testing.assert_allclose(together, torch.cat(alone), rtol=0, atol=LAW)


def test_a_text_reads_its_image_and_all_of_its_words() -> None:
    """Else the two laws above would hold for a model that reads nothing."""
    words, length = texts([6]), torch.tensor([6])
    with torch.inference_mode():
        first = EXACT_ONE.embed_queries(EXACT_ONE.fuse(words[0][None], length, images(1)))
        other_image = EXACT_ONE.embed_queries(
            EXACT_ONE.fuse(words[0][None], length, images(1, seed=6))
        )
        shorter = EXACT_ONE.embed_queries(EXACT_ONE.fuse(words[0][None], length - 1, images(1)))
    assert (first - other_image).abs().max() > 0.01
    assert (first - shorter).abs().max() > 0.001


class Unhurried(Stage2Model):
    """Computes every position of the last layer too."""

    def _positions(self, index: int) -> slice:
        return slice(None)


@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("merge_from", [0, 1, 3])
def test_the_last_layers_shortcut_changes_no_score(layers: int, merge_from: int) -> None:
    lengths, config = [5, 2, 8], stage2_config(merge_from, layers)
    z_t = padded([drawn(row, length, TEXT.width) for row, length in enumerate(lengths)], 0, 0.0)
    inputs = (z_t, padded(texts(lengths), 0, 0), torch.tensor(lengths), images(3))
    with torch.inference_mode():
        quick = fill(Stage2Model(config), 3).double()(*inputs)
        full = fill(Unhurried(config), 3).double()(*inputs)
    np.testing.assert_allclose(quick, full, rtol=0, atol=LAW)


@pytest.mark.parametrize(("merge_from", "linear"), [(0, "012"), (1, "12"), (2, "2"), (3, "")])
def test_layers_below_merge_from_have_no_linear_merge(merge_from: int, linear: str) -> None:
    names = tiny_stage2(merge_from=merge_from).state_dict()
    assert "".join(i for i in "012" if f"layers.{i}.merge.weight" in names) == linear


def test_image_tokens_do_not_depend_on_the_batch() -> None:
    pixels = drawn(1, 4, 3, VISION.image_size, VISION.image_size)
    with torch.inference_mode():
        together = EXACT_ONE.vision(pixels)
        alone = torch.cat([EXACT_ONE.vision(image[None]) for image in pixels])
    assert together.shape == (4, VISION.tokens, VISION.width)
    np.testing.assert_allclose(together, alone, rtol=0, atol=LAW)


def test_patches_follow_the_class_token_row_by_row() -> None:
    """With blocks that add nothing, token i is the normalised patch i alone."""
    vision = fill(VisionTransformer(VISION.model_copy(update={"depth": 0})), 1).double()
    pixels = drawn(2, 1, 3, 16, 16)
    weight, bias = vision.patch.weight.flatten(1), vision.patch.bias
    assert bias is not None
    corners = [(0, 0), (0, 8), (8, 0), (8, 8)]
    patches = [pixels[0, :, y : y + 8, x : x + 8].flatten() @ weight.T + bias for y, x in corners]
    expected = vision.norm(torch.stack([vision.cls_token[0, 0], *patches]) + vision.position[0])
    np.testing.assert_allclose(vision(pixels)[0].detach(), expected.detach(), rtol=0, atol=LAW)


def test_embeddings_are_unit_vectors_of_position_0() -> None:
    tokens, z_t = images(3), drawn(1, 3, 5, TEXT.width)
    with torch.inference_mode():
        of_images, of_queries = EXACT_ONE.embed_images(tokens), EXACT_ONE.embed_queries(z_t)
        for found, states, layer in (
            (of_images, tokens, EXACT_ONE.vision_projection),
            (of_queries, z_t, EXACT_ONE.text_projection),
        ):
            projected = states[:, 0] @ layer.weight.T + layer.bias
            expected = projected / (projected**2).sum(dim=1, keepdim=True).sqrt()
            np.testing.assert_allclose(found, expected, rtol=0, atol=LAW)


def test_a_text_longer_than_the_positions_is_never_cut_silently() -> None:
    length = TEXT.positions + 1
    ids, z_t = torch.zeros(1, length, dtype=torch.long), torch.zeros(1, length, TEXT.width)
    with torch.inference_mode():
        EXACT_ONE.fuse(ids[:, 1:], torch.tensor([length - 1]), images(1))  # just fits
        with pytest.raises(RuntimeError, match="must match the size"):
            EXACT_ONE.fuse(ids, torch.tensor([length]), images(1))
        with pytest.raises(RuntimeError, match="must match the size"):
            EXACT_TWO(z_t.double(), ids, torch.tensor([length]), images(1))


STAGE1: dict[str, Any] = ONE.config.model_dump()
STAGE2: dict[str, Any] = TWO.config.model_dump()


def changed(content: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """A copy with one field set; ``path`` is dotted."""
    head, _, rest = path.partition(".")
    return content | {head: changed(content[head], rest, value) if rest else value}


def test_a_config_survives_the_way_to_json_and_back() -> None:
    for config in (ONE.config, TWO.config):
        assert parse_config(config.model_dump(mode="json"), "here") == config


@pytest.mark.parametrize(
    ("content", "path", "value"),
    [
        (STAGE1, "kind", "stage3"),
        (STAGE1, "embedding", 0),
        (STAGE1, "embedding", "many"),
        (STAGE1, "text.width", 15),  # two heads
        (STAGE1, "text.layers", -1),
        (STAGE1, "text.vocabulary", "klingon"),
        (STAGE1, "text.surprise", 1),
        (STAGE1, "vision.width", 13),  # three heads
        (STAGE1, "vision.image_size", 20),  # patches of eight
        (STAGE1, "vision", None),
        (STAGE1, "merge_from", 1),
        (STAGE2, "merge_from", "middle"),
        (STAGE2, "embedding", 8),
    ],
)
def test_a_config_that_says_nonsense_is_refused(
    content: dict[str, Any], path: str, value: object
) -> None:
    with pytest.raises(CheckpointRefused, match="json is not usable") as refusal:
        parse_config(changed(content, path, value), "some/folder")
    assert refusal.value.item == "some/folder"
    named = {"text.width": "text", "vision.width": "vision", "vision.image_size": "vision"}
    assert named.get(path, path) in refusal.value.cause


def test_every_fault_of_a_config_is_told_at_once() -> None:
    content = changed(changed(STAGE2, "text.layers", 0), "vision.depth", "deep")
    with pytest.raises(CheckpointRefused) as refusal:
        parse_config(content, "here")
    assert "text.layers" in refusal.value.cause
    assert "vision.vit.depth" in refusal.value.cause


def test_an_empty_config_is_refused() -> None:
    with pytest.raises(CheckpointRefused):
        parse_config({}, "here")


def test_the_number_of_image_tokens() -> None:
    assert VISION.tokens == 5
    assert VISION.model_copy(update={"image_size": 384, "patch_size": 16}).tokens == 577


def test_loading_gives_the_same_weights_in_eval_mode() -> None:
    one = load_model(ONE.config, ONE.state_dict(), "one")
    two = load_model(TWO.config, TWO.state_dict(), "two")
    for source, loaded in ((ONE, one), (TWO, two)):
        assert not loaded.training
        tensors = loaded.state_dict()
        assert all(torch.equal(tensors[name], t) for name, t in source.state_dict().items())


def test_half_precision_weights_are_loaded_as_single() -> None:
    halves = {name: tensor.half() for name, tensor in ONE.state_dict().items()}
    loaded = load_model(ONE.config, halves, "here").state_dict()
    assert all(tensor.dtype == torch.float32 for tensor in loaded.values())
    assert all(torch.equal(loaded[name], half.float()) for name, half in halves.items())


def _refusal(tensors: dict[str, Tensor]) -> CheckpointRefused:
    model = Stage2Model(TWO.config)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointRefused) as refusal:
        load_strictly(model, tensors, "two.safetensors")
    assert all(torch.equal(model.state_dict()[name], t) for name, t in before.items())
    assert refusal.value.item == "two.safetensors"
    return refusal.value


def test_missing_extra_and_misshapen_tensors_are_named_together() -> None:
    tensors = dict(TWO.state_dict())
    del tensors["vision.cls_token"]
    tensors["vision.extra"] = torch.zeros(1)
    tensors["score_head.output.bias"] = torch.zeros(3)
    cause = _refusal(tensors).cause
    assert "1 missing: vision.cls_token" in cause
    assert "1 extra: vision.extra" in cause
    assert "1 misshapen: score_head.output.bias is (3,), expected (2,)" in cause


def test_a_tensor_of_the_same_size_but_another_shape_is_refused() -> None:
    name = "layers.0.feed_forward.expand.weight"
    tensors = dict(TWO.state_dict())
    tensors[name] = tensors[name].T
    assert f"1 misshapen: {name} is (16, 24), expected (24, 16)" in _refusal(tensors).cause


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_refused(value: float) -> None:
    tensors = {name: tensor.clone() for name, tensor in TWO.state_dict().items()}
    tensors["layers.1.merge.bias"][3] = value
    refusal = _refusal(tensors)
    assert isinstance(refusal, NonFiniteError)
    assert "layers.1.merge.bias" in refusal.cause


def test_the_stages_cannot_be_swapped() -> None:
    with pytest.raises(CheckpointRefused, match="not a stage 1 model"):
        load_retriever(TWO.config.model_dump(), TWO.state_dict(), "two")
    with pytest.raises(CheckpointRefused, match="not a stage 2 model"):
        load_reranker(ONE.config.model_dump(), ONE.state_dict(), "one")


def _pair(vision: nn.Module) -> Stage2Model:
    two = tiny_stage2()
    two.vision.load_state_dict(vision.state_dict())
    return two


def test_a_pair_must_hold_one_visual_encoder() -> None:
    two = _pair(ONE.vision)
    require_pair(ONE, DualReranker(two))
    with torch.no_grad():
        two.vision.get_parameter("position")[0, 0, 0] += 1e-6
    with pytest.raises(CheckpointRefused, match="different visual encoders") as refusal:
        require_pair(ONE, DualReranker(two))
    assert refusal.value.cause == "1 tensors differ: position"


def test_a_pair_must_agree_on_the_visual_encoders_sizes() -> None:
    """Same tensors, cut into another number of heads: another encoder."""
    vision = VISION.model_copy(update={"heads": 2})
    two = Stage2Model(TWO.config.model_copy(update={"vision": vision}))
    two.vision.load_state_dict(ONE.vision.state_dict())
    with pytest.raises(CheckpointRefused, match="different visual encoders"):
        require_pair(ONE, DualReranker(two))


def test_a_pair_must_agree_on_the_width_of_z_t() -> None:
    text = TEXT.model_copy(update={"width": 8})
    two = Stage2Model(Stage2Config(kind="stage2", vision=VISION, text=text, merge_from=1))
    two.vision.load_state_dict(ONE.vision.state_dict())
    with pytest.raises(CheckpointRefused, match="stage 2 does not fit this stage 1"):
        require_pair(ONE, DualReranker(two))


def test_only_the_base_carries_a_matching_head() -> None:
    stage1 = Stage1Model(Stage1Config.model_validate(STAGE1 | {"kind": "stage1"}))
    ours, bases = set(stage1.state_dict()), set(ONE.state_dict())
    assert bases - ours == {"matching_head.weight", "matching_head.bias"}
    assert ours < bases
