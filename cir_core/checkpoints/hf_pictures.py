"""How pictures become a model's input, told from Hugging Face's ``preprocessor_config.json``."""

from collections.abc import Mapping
from math import isclose
from typing import Any

from cir_core.errors import CheckpointRefused
from cir_core.layers.preprocess import CHANNELS

RESAMPLES = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""

LARGEST_BYTE = 255

STEPS = ("do_resize", "do_rescale", "do_normalize")


def picture_fields(processor: Mapping[str, Any], image_size: Any, source: str) -> dict[str, Any]:
    """Fields of ``TowerConfig``: fit, resample, mean and std.

    Raises CheckpointRefused for steps that are left out or unknown, and for a size that is not the
    tower's.
    """
    left_out = [f"{step} is false" for step in STEPS if not processor.get(step, True)]
    resample = processor.get("resample", 3)
    fit, size = _fit(processor)
    faults = [
        *left_out,
        *([f"resample {resample!r} is unknown"] if resample not in RESAMPLES else []),
        *([f"size {processor.get('size')!r} makes no square"] if size is None else []),
        *(
            [f"it makes {size} px, and the tower takes {image_size}"]
            if size not in (None, image_size)
            else []
        ),
        *_scaling_faults(processor),
    ]
    if faults:
        raise CheckpointRefused(
            "pictures cannot be prepared as this model's preprocessor_config.json says",
            item=source,
            cause="; ".join(faults),
            remedy="download the folder again, whole: preprocessor_config.json and config.json of "
            "the same model",
        )
    return {
        "fit": fit,
        "resample": RESAMPLES[resample],
        "mean": tuple(processor["image_mean"]),
        "std": tuple(processor["image_std"]),
    }


def _scaling_faults(processor: Mapping[str, Any]) -> list[str]:
    faults = [
        f"{name} is {processor.get(name)!r}, expected three numbers"
        for name in ("image_mean", "image_std")
        if not isinstance(processor.get(name), list | tuple) or len(processor[name]) != CHANNELS
    ]
    factor = processor.get("rescale_factor", 1 / LARGEST_BYTE)
    return faults + ([] if isclose(factor * LARGEST_BYTE, 1) else [f"rescale_factor is {factor}"])


def _fit(processor: Mapping[str, Any]) -> tuple[str, int | None]:
    """How, and to how many pixels; None where that is no square."""
    size, crop = processor.get("size"), processor.get("crop_size")
    cut = processor.get("do_center_crop", crop is not None)
    side = _side(crop) if cut else None
    if isinstance(size, Mapping) and "shortest_edge" not in size:
        whole = _side(size)
        return "squash", whole if side in (None, whole) else None
    shortest = size.get("shortest_edge") if isinstance(size, Mapping) else size
    return "crop", side if side is not None and side == shortest else None


def _side(size: Any) -> int | None:
    if isinstance(size, Mapping):
        height, width = size.get("height"), size.get("width")
        return height if height == width and isinstance(height, int) else None
    return size if isinstance(size, int) else None
