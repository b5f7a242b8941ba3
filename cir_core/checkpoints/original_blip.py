"""Checkpoints of BLIP's own code base beside the published ones: the pre-trained base of any size
(``blip_retrieval.py``, ``blip_pretrain.py`` of salesforce/BLIP), and CoVR's stage 1
(``blip_cir.py`` of lucas-ventura/CoVR). Both lie below ``MODEL_KEY`` in their files.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from cir_core.checkpoints.conversion import Converted, KeyTable, rename, unwrapped
from cir_core.checkpoints.published import FUSION, POSITION_IDS, PROJECTIONS, STAGE1, VISION
from cir_core.checkpoints.sizes import Sizes
from cir_core.families import parse_config
from cir_core.retrievers.blip.fusion import INITIAL_TEMPERATURE

MODEL_KEY = "model"

BASE = STAGE1 | {"itm_head": "matching_head"}

COVR = VISION | FUSION | PROJECTIONS
"""Its temperature is a constant of the code, 0.07, and so in no file."""

_TRAINING_ONLY = re.compile(
    r"(visual_encoder_m|text_encoder_m|vision_proj_m|text_proj_m|text_decoder)\..+"
    r"|(image|text|idx|ptr)_queue|queue_ptr"
)
"""Momentum encoders, queues of negatives, the captioning decoder: what only pre-training uses."""


def is_base(state: Mapping[str, Tensor]) -> bool:
    """A base has a matching head; neither stage has."""
    return any(key.startswith("itm_head.") for key in unwrapped(state))


def is_covr(model_key: str, state: Mapping[str, Tensor]) -> bool:
    """Told by what it lacks: a temperature and a matching head."""
    state = unwrapped(state)
    known = "vision_proj.weight" in state and "text_proj.weight" in state
    return model_key == MODEL_KEY and known and "temp" not in state and not is_base(state)


def convert_base(state: Mapping[str, Tensor], source: str) -> Converted:
    """A pre-trained base (kind ``blip``). ``dropped`` names what only its training used. Raises as
    ``convert_published``."""
    state = unwrapped(state)
    dropped = sorted(key for key in state if _TRAINING_ONLY.fullmatch(key))
    kept = {key: tensor for key, tensor in state.items() if key not in dropped}
    table = KeyTable(BASE)
    config = parse_config({"kind": "blip", **Sizes(kept, table, source).of_stage1()}, source)
    counters = {POSITION_IDS: config.text.positions}
    found = rename(kept, table, config, source, counters=counters)
    return Converted(config, found.tensors, (*found.dropped, *dropped))


def convert_covr(state: Mapping[str, Tensor], source: str) -> Converted:
    """CoVR's stage 1. Its code squashes pictures to a square and reads some marks as spaces, which
    the config says; it cuts texts off after 35 tokens, and we never do. Raises as
    ``convert_published``."""
    state, table = unwrapped(state), KeyTable(COVR)
    sizes = Sizes(state, table, source).of_stage1()
    content = {
        "kind": "stage1",
        "vision": {**sizes["vision"], "fit": "squash"},
        "text": {**sizes["text"], "marks": "blanked"},
        "embedding": sizes["embedding"],
    }
    config = parse_config(content, source)
    counters = {POSITION_IDS: config.text.positions}
    found = rename(state, table, config, source, counters=counters, lacking={"temperature"})
    found.tensors["temperature"] = torch.tensor(INITIAL_TEMPERATURE)
    return found
