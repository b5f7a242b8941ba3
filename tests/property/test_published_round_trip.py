"""A model goes into the published names and back unchanged, or is refused: never half told."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cir_core.checkpoints.published import convert_published, to_published
from cir_core.errors import CheckpointRefused
from cir_core.families import TrainedConfig
from cir_core.layers.config import TextConfig, VisionConfig, Vocabulary
from cir_core.rerankers.dual.config import Stage2Config
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.retrievers.blip.config import Stage1Config
from cir_core.retrievers.blip.fusion import Stage1Model

WIDTHS = st.sampled_from([64, 128])
SMALL = st.integers(1, 4)
VOCABULARIES: list[tuple[Vocabulary, int]] = [
    ("bert-base-uncased", 30524),
    ("bert-base-uncased", 30522),
    ("demo", 180),
    ("demo", 30524),
]


@st.composite
def configs(draw: st.DrawFn) -> TrainedConfig:
    """Half of the heads and vocabularies are those of the published format, half are not."""
    published = draw(st.booleans())
    vision_width, text_width = draw(WIDTHS), draw(WIDTHS)
    patch = draw(SMALL)
    vocabulary, words = VOCABULARIES[0] if published else draw(st.sampled_from(VOCABULARIES))
    vision = VisionConfig(
        image_size=patch * draw(SMALL),
        patch_size=patch,
        width=vision_width,
        depth=draw(SMALL),
        heads=vision_width // 64 if published else draw(st.sampled_from([1, vision_width // 64])),
        mlp_width=draw(st.integers(1, 50)),
    )
    text = TextConfig(
        vocabulary=vocabulary,
        vocabulary_size=words,
        width=text_width,
        layers=draw(SMALL),
        heads=text_width // 64 if published else draw(st.sampled_from([1, text_width // 64])),
        feed_forward=draw(st.integers(1, 50)),
        positions=draw(st.integers(1, 40)),
    )
    if draw(st.booleans()):
        return Stage1Config(kind="stage1", vision=vision, text=text, embedding=draw(SMALL))
    bounds = (0, text.layers) if published else (-1, text.layers + 1)
    return Stage2Config(
        kind="stage2", vision=vision, text=text, merge_from=draw(st.integers(*bounds))
    )


@settings(deadline=None)
@given(configs())
def test_a_model_comes_back_as_it_was_or_is_refused(config: TrainedConfig) -> None:
    tensors = numbered(config)
    try:
        published = to_published(config, tensors, "model")
    except CheckpointRefused:
        assert not is_told_by_shapes(config)
        return
    assert is_told_by_shapes(config)
    back = convert_published(published.state, "file")
    assert back.config == config
    assert back.dropped == published.added
    assert back.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(back.tensors[name], tensor), name


def is_told_by_shapes(config: TrainedConfig) -> bool:
    merges = config.merge_from if isinstance(config, Stage2Config) else 0
    return (
        64 * config.vision.heads == config.vision.width
        and 64 * config.text.heads == config.text.width
        and (config.text.vocabulary, config.text.vocabulary_size) == VOCABULARIES[0]
        and merges in range(config.text.layers + 1)
    )


def numbered(config: TrainedConfig) -> dict[str, Tensor]:
    """Each tensor is full of a number of its own, so that none can stand for another."""
    with torch.device("meta"):
        model = Stage1Model(config) if isinstance(config, Stage1Config) else Stage2Model(config)
    return {
        name: torch.tensor(float(number)).expand(tensor.shape)
        for number, (name, tensor) in enumerate(model.state_dict().items())
    }
