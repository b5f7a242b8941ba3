"""A pre-trained base of two halves: the image tower of one model under the text encoder of
another."""

import torch
from torch import nn

from cir_core.checkpoints.conversion import Converted
from cir_core.errors import CheckpointRefused
from cir_core.layers.tower import Tower
from cir_core.retrievers.blip.fusion import Stage1Model

SEED = 0
"""The same halves make the same base."""


def grafted(tower: Tower, base: Stage1Model, source: str) -> Converted:
    """A base (kind ``blip``) that sees as ``tower`` does and reads as ``base``; training leaves the
    tower frozen. What reads image tokens starts anew where they are of another width: keys and
    values of cross-attention; so does the projection of image embeddings. Raises CheckpointRefused
    for a ``base`` without a matching head.
    """
    if base.config.kind != "blip":
        raise CheckpointRefused(
            "this is no pre-trained base",
            item=source,
            cause=f"its kind is {base.config.kind!r}",
            remedy="pass a base: a converted Hugging Face BLIP folder, or `train pretrain`'s best",
        )
    config = base.config.model_copy(update={"vision": tower.config})
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = Stage1Model(config)
        nn.init.xavier_uniform_(model.vision_projection.weight)
        nn.init.zeros_(model.vision_projection.bias)
    model.vision.load_state_dict(tower.state_dict())
    ours, theirs = model.state_dict(), base.state_dict()
    kept = {
        name: tensor
        for name, tensor in theirs.items()
        if not name.startswith(("vision.", "vision_projection."))
        and ours[name].shape == tensor.shape
    }
    model.load_state_dict(kept, strict=False)
    return Converted(config, model.state_dict(), ())
