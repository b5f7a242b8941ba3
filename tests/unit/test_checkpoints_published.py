"""The published key tables: sizes from shapes, nothing lost, the same bytes every time."""

from pathlib import Path

import pytest
import torch

from cir_core.checkpoints.conversion import KeyTable
from cir_core.checkpoints.published import STAGE1, STAGE2, convert_published, to_published
from cir_core.layers.config import TextConfig, VisionConfig
from cir_core.rerankers.dual.config import Stage2Config
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.retrievers.blip.config import Stage1Config
from cir_core.retrievers.blip.fusion import Stage1Model
from storage.atomic import sha256_of
from storage.models.folders import read_tensors
from tasks.models.convert import convert
from tests.support.tiny_checkpoints import MODEL_KEYS, save_published, tiny_stage1, tiny_stage2

VISION = VisionConfig(image_size=64, patch_size=16, width=128, depth=2, heads=2, mlp_width=512)
TEXT = TextConfig(
    vocabulary="bert-base-uncased",
    vocabulary_size=30524,
    width=128,
    layers=8,
    heads=2,
    feed_forward=256,
    positions=512,
    dropout=0.1,
)
PUBLISHED_VISION = VisionConfig(
    image_size=384, patch_size=16, width=768, depth=12, heads=12, mlp_width=3072
)
PUBLISHED_TEXT = TEXT.model_copy(
    update={"width": 768, "layers": 12, "heads": 12, "feed_forward": 3072}
)


def test_sizes_of_stage1_come_from_the_shapes() -> None:
    converted = convert_published(tiny_stage1(), "stage1.pt")
    assert converted.config == Stage1Config(kind="stage1", vision=VISION, text=TEXT, embedding=32)


def test_sizes_of_stage2_come_from_the_shapes() -> None:
    converted = convert_published(tiny_stage2(), "stage2.pt")
    assert converted.config == Stage2Config(kind="stage2", vision=VISION, text=TEXT, merge_from=6)


@pytest.mark.parametrize(
    ("config", "tensors", "millions"),
    [
        (
            Stage1Config(
                kind="stage1", vision=PUBLISHED_VISION, text=PUBLISHED_TEXT, embedding=256
            ),
            472,
            223.7,
        ),
        (
            Stage2Config(kind="stage2", vision=PUBLISHED_VISION, text=PUBLISHED_TEXT, merge_from=6),
            723,
            288.3,
        ),
    ],
)
def test_sizes_of_the_real_checkpoints_are_told_too(
    config: Stage1Config | Stage2Config, tensors: int, millions: float
) -> None:
    """Tensor and parameter counts are those of the released files (position_ids included)."""
    with torch.device("meta"):
        model = Stage1Model(config) if isinstance(config, Stage1Config) else Stage2Model(config)
    zeros = {
        name: torch.zeros(()).expand(tensor.shape) for name, tensor in model.state_dict().items()
    }
    assert round(sum(tensor.numel() for tensor in zeros.values()) / 1e6, 1) == millions
    published = to_published(config, zeros, "full size")
    assert len(published.state) == tensors
    assert convert_published(published.state, "full size").config == config


def test_every_key_is_mapped_or_named_as_dropped() -> None:
    for state in (tiny_stage1(), tiny_stage2()):
        converted = convert_published(state, "a.pt")
        assert converted.dropped == ("text_encoder.embeddings.position_ids",)
        assert len(converted.tensors) + len(converted.dropped) == len(state)


def test_no_value_changes_and_halves_become_fp32() -> None:
    state = tiny_stage1()
    halves = {
        key: tensor.half() if tensor.is_floating_point() else tensor
        for key, tensor in state.items()
    }
    converted = convert_published(halves, "half.pt").tensors
    assert all(tensor.dtype == torch.float32 for tensor in converted.values())
    assert torch.equal(converted["text_projection.bias"], halves["text_proj.bias"].float())


@pytest.mark.parametrize("names", [STAGE1, STAGE2])
def test_a_table_reads_the_same_in_both_directions(names: dict[str, str]) -> None:
    assert len(set(names.values())) == len(names)
    table = KeyTable(names)
    for theirs in names:
        key = theirs.replace("{layer}", "11") + ".weight"
        ours = table.ours(key)
        assert ours is not None
        assert table.theirs(ours) == key


def test_branches_do_not_mix() -> None:
    state = tiny_stage2()
    ours = convert_published(state, "stage2.pt").tensors
    theirs = "text_encoder.encoder.layer.7.crossattention"
    assert ours["layers.7.cross_attention.1.key.weight"] is state[f"{theirs}.self1.key.weight"]
    assert ours["layers.7.cross_attention.0.output.bias"] is state[f"{theirs}.output.dense0.bias"]
    assert ours["layers.7.cross_norm.1.weight"] is state[f"{theirs}.output.LayerNormB.weight"]
    assert ours["layers.7.merge.weight"] is state[f"{theirs}.output.merge_layer.weight"]


def test_a_missing_buffer_is_fine() -> None:
    state = tiny_stage1()
    del state["text_encoder.embeddings.position_ids"]
    assert convert_published(state, "newer.pt").dropped == ()


def test_converting_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    source = save_published(tmp_path / "1.pt", tiny_stage1(), MODEL_KEYS["stage1"])
    first = convert(source, tmp_path / "model")
    second = convert(source, tmp_path / "model")
    assert first == second
    assert first.kind == "stage1"
    assert first.dropped == ("text_encoder.embeddings.position_ids",)
    assert first.sha256 == sha256_of(tmp_path / "model" / "model.safetensors")
    stored = read_tensors(tmp_path / "model")
    assert first.parameters == sum(tensor.numel() for tensor in stored.values())
