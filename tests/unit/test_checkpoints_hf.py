"""Hugging Face's BLIP against ours in float64, random weights, one unpadded text at a time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from cir_core.checkpoints.hf_blip import convert_hf_blip
from cir_core.errors import CheckpointRefused
from cir_core.families import load_model, parse_config
from cir_core.retrievers.blip.config import Stage1Config
from cir_core.retrievers.blip.fusion import INITIAL_TEMPERATURE, Stage1Model
from storage.models.folders import read_config, read_tensors
from tasks.models.convert import convert
from tests.support.tiny_checkpoints import tiny_tensor
from tests.support.tolerances import LAW

if TYPE_CHECKING:
    from transformers import BlipForImageTextRetrieval

pytestmark = [pytest.mark.numeric, pytest.mark.slow]

TEXTS = [[30523, 2003, 2417, 102], [30523, 102], [30523, 2038, 1037, 5583, 1998, 2936, 102]]


@pytest.fixture(scope="module")
def theirs() -> "BlipForImageTextRetrieval":
    """Heads of 16 and 8 (ours would guess 64), widths that differ, BLIP's own epsilon."""
    from transformers import BlipConfig, BlipForImageTextRetrieval

    config = BlipConfig(
        vision_config={
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 96,
            "image_size": 48,
            "patch_size": 16,
            "layer_norm_eps": 1e-6,
            "initializer_range": 0.02,
        },
        text_config={
            "hidden_size": 32,
            "encoder_hidden_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "vocab_size": 30524,
            "max_position_embeddings": 20,
        },
        image_text_hidden_size=16,
    )
    model: BlipForImageTextRetrieval = BlipForImageTextRetrieval(config)
    model.eval()
    state = {  # of realistic magnitude: freshly made biases are 0 and norms 1, which hides mix-ups
        name: tiny_tensor(name, list(tensor.shape), "hf")
        for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(state, strict=True)
    return model.double()


@pytest.fixture(scope="module")
def ours(theirs: "BlipForImageTextRetrieval") -> Stage1Model:
    converted = convert_hf_blip(theirs.state_dict(), theirs.config.to_dict(), "hf")
    return load_model(converted.config, converted.tensors, "hf").double()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    drawn = torch.Generator().manual_seed(0)
    return torch.randn(3, 3, 48, 48, generator=drawn, dtype=torch.float64)


@pytest.fixture(scope="module")
def image_tokens(theirs: "BlipForImageTextRetrieval", pixels: Tensor) -> Tensor:
    with torch.no_grad():
        tokens: Tensor = theirs.vision_model(pixel_values=pixels).last_hidden_state
    return tokens


def test_config(ours: Stage1Model) -> None:
    config = ours.config
    assert isinstance(config, Stage1Config)
    assert config.kind == "blip"
    assert (config.vision.heads, config.text.heads) == (4, 4)
    assert (config.vision.image_size, config.text.positions, config.embedding) == (48, 20, 16)
    assert ours.temperature.item() == pytest.approx(INITIAL_TEMPERATURE)


def test_image_tokens(ours: Stage1Model, pixels: Tensor, image_tokens: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(ours.vision(pixels), image_tokens, rtol=0, atol=LAW)


@pytest.mark.parametrize("row", range(len(TEXTS)))
def test_fused_state_and_matching_logits(
    ours: Stage1Model,
    theirs: "BlipForImageTextRetrieval",
    pixels: Tensor,
    image_tokens: Tensor,
    row: int,
) -> None:
    ids, one = torch.tensor([TEXTS[row]]), slice(row, row + 1)
    with torch.no_grad():
        reference = theirs(ids, pixels[one], attention_mask=torch.ones_like(ids))
        fused = ours.fuse(ids, _lengths(ids), image_tokens[one])
        logits = ours.matching_head(fused[:, 0])
    torch.testing.assert_close(fused, reference.question_embeds, rtol=0, atol=LAW)
    torch.testing.assert_close(logits, reference.itm_score, rtol=0, atol=LAW)


@pytest.mark.parametrize("row", range(len(TEXTS)))
def test_embeddings(
    ours: Stage1Model,
    theirs: "BlipForImageTextRetrieval",
    pixels: Tensor,
    image_tokens: Tensor,
    row: int,
) -> None:
    ids = torch.tensor([TEXTS[row]])
    with torch.no_grad():
        reference = theirs(ids, pixels, use_itm_head=False, attention_mask=torch.ones_like(ids))
        text = ours.embed_queries(ours.text(ids, _lengths(ids), None))
        images = ours.embed_images(image_tokens)
        expected_images = functional.normalize(theirs.vision_proj(image_tokens[:, 0]), dim=-1)
    torch.testing.assert_close(images, expected_images, rtol=0, atol=LAW)
    torch.testing.assert_close(images @ text.T, reference.itm_score, rtol=0, atol=LAW)


def test_padding_a_text_does_not_change_our_fused_state(
    ours: Stage1Model, image_tokens: Tensor
) -> None:
    ids = torch.tensor([TEXTS[0]])
    padded = functional.pad(ids, (0, 5))
    with torch.no_grad():
        alone = ours.fuse(ids, _lengths(ids), image_tokens[:1])
        among = ours.fuse(padded, _lengths(ids), image_tokens[:1])[:, : ids.shape[1]]
    torch.testing.assert_close(among, alone, rtol=0, atol=LAW)


def _save_safetensors(state: dict[str, Tensor], folder: Path) -> None:
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _save_pickle(state: dict[str, Tensor], folder: Path) -> None:
    torch.save(state, folder / "pytorch_model.bin")


def _save_old_pickle(state: dict[str, Tensor], folder: Path) -> None:
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("save", [_save_safetensors, _save_pickle, _save_old_pickle])
def test_a_folder_of_any_age_is_converted(
    theirs: "BlipForImageTextRetrieval",
    ours: Stage1Model,
    tmp_path: Path,
    save: Callable[[dict[str, Tensor], Path], None],
) -> None:
    """Older folders hold a pickle, and the buffer ``position_ids``."""
    position_ids = "text_encoder.embeddings.position_ids"
    save(theirs.state_dict() | {position_ids: torch.arange(20)[None]}, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(theirs.config.to_dict()))
    converted = convert(tmp_path, tmp_path / "ours")
    assert (converted.kind, converted.dropped) == ("blip", (position_ids,))
    stored = load_model(
        parse_config(read_config(converted.path), "hf"), read_tensors(converted.path), "hf"
    )
    for name, tensor in ours.state_dict().items():
        assert torch.equal(stored.state_dict()[name], tensor), name


def test_heads_are_width_by_64_when_the_config_is_silent(
    theirs: "BlipForImageTextRetrieval",
) -> None:
    with pytest.raises(CheckpointRefused, match="width 32 does not divide into heads of 64"):
        convert_hf_blip(theirs.state_dict(), {"model_type": "blip"}, "hf")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model_type": "clip"}, "model_type is 'clip'"),
        ({"vision_config": {"hidden_act": "quick_gelu"}}, "hidden_act is 'quick_gelu'"),
        ({"vision_config": {"num_attention_heads": 5}}, "width of heads"),
    ],
)
def test_another_architecture_is_refused(
    theirs: "BlipForImageTextRetrieval", change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(CheckpointRefused, match=complaint):
        convert_hf_blip(theirs.state_dict(), theirs.config.to_dict() | change, "hf")


def _lengths(ids: Tensor) -> Tensor:
    return torch.tensor([ids.shape[1]])
