"""Tiny checkpoints in the published format, with weights that need no file.

Each tensor is drawn from a generator seeded with the CRC-32 of its own name, so names and shapes
are enough to make it again anywhere. The folder ``golden/published_tiny`` holds the shapes, and
what the published implementation computed from these weights, in advance and apart from us.
"""

import json
import zlib
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent.parent / "golden" / "published_tiny"
MODEL_KEYS = {"stage1": "BLIP_Retrieval", "stage2": "BLIP_NLVR"}
_SALTS = {"stage1": "a1", "stage2": "a2"}


def tiny_tensor(name: str, shape: list[int], salt: str) -> Tensor:
    """Magnitudes are those of a trained model: norms near 1, small biases, fan-in scaling."""
    if name.endswith("position_ids"):
        return torch.arange(shape[-1]).expand(shape).clone()
    if name == "temp":
        return torch.tensor(0.07)
    rng = np.random.default_rng(zlib.crc32((salt + name).encode()))
    draws = rng.standard_normal(shape).astype(np.float32)
    if "norm" in name.lower() and name.endswith("weight"):
        draws = 1 + 0.1 * draws
    elif name.endswith("bias"):
        draws = 0.05 * draws
    elif any(part in name for part in ("embeddings", "pos_embed", "cls_token")):
        draws = 0.5 * draws
    else:
        draws = draws * (1.5 / np.sqrt(_fan_in(shape)))
    return torch.from_numpy(np.ascontiguousarray(draws, dtype=np.float32))


def tiny_state(shapes: Mapping[str, list[int]], salt: str) -> dict[str, Tensor]:
    return {name: tiny_tensor(name, shape, salt) for name, shape in shapes.items()}


def tiny_stage1() -> dict[str, Tensor]:
    """A state dict of the published ``BLIP_Retrieval``."""
    return tiny_state(_shapes("stage1"), _SALTS["stage1"])


def tiny_stage2() -> dict[str, Tensor]:
    """A state dict of the published ``BLIP_NLVR``, with stage 1's visual encoder."""
    shapes = _shapes("stage2")
    return {
        name: tiny_tensor(name, shape, _SALTS["stage1" if _is_visual(name) else "stage2"])
        for name, shape in shapes.items()
    }


def save_published(path: Path, state: Mapping[str, object], model_key: str) -> Path:
    """Write a file as the published training code does."""
    torch.save({"epoch": 0, model_key: dict(state), "optimizer_state_dict": {}}, path)
    return path


def _shapes(stage: str) -> dict[str, list[int]]:
    shapes: dict[str, list[int]] = json.loads((GOLDEN / f"{stage}_shapes.json").read_text())
    return shapes


def _is_visual(name: str) -> bool:
    return name.startswith("visual_encoder.")


def _fan_in(shape: list[int]) -> int:
    return prod(shape[1:]) if len(shape) > 1 else 1
