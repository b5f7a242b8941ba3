"""transformers' model behind a yes/no question, and its vision encoder."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from math import prod
from typing import Any, NamedTuple, Self

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from cir_core.errors import CheckpointRefused
from cir_core.layers.precision import DTYPES, rounded_products
from cir_core.layers.shapes import misfit, require_all, shapes_alone
from cir_core.layers.smart_resize import SmartResize
from cir_core.layers.token_files import TOKENIZER_FILE
from cir_core.rerankers.vlm.config import TEMPLATE, VlmConfig
from cir_core.rerankers.vlm.extra import transformers
from cir_core.rerankers.vlm.prompt import make_prompt
from cir_core.types import Precision

ATTENTION = "sdpa"


class VlmModel(nn.Module):
    """``net`` is transformers' own, of one of ``ARCHITECTURES``. ``answer`` times the last hidden
    state is logit(yes) - logit(no)."""

    answer: Tensor

    def __init__(self, config: VlmConfig, net: Any) -> None:
        super().__init__()
        self.config = config
        self.net = net
        prompt = config.prompt
        head = net.get_output_embeddings().weight.detach().float()
        self.register_buffer("answer", head[prompt.yes] - head[prompt.no], persistent=False)

    @cached_property
    def encoder(self) -> "VlmEncoder":
        return VlmEncoder(self.config, self.net.model.visual)


def load_vlm(config: VlmConfig, tensors: Mapping[str, Tensor], source: str) -> VlmModel:
    """In eval mode and fp32. Names of tensors may be those of any of transformers' releases.

    Raises CheckpointRefused when a tensor is missing, extra or misshapen, or when the recorded
    prompt is not what form, template and tokenizer give; PreflightError without transformers.
    """
    require_prompt(config, source)
    package = transformers()
    parsed = package.AutoConfig.for_model(**config.architecture)
    net, found = package.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING[type(parsed)].from_pretrained(
        None,
        config=parsed,
        state_dict={name: tensor.float() for name, tensor in tensors.items()},
        dtype=torch.float32,
        attn_implementation=ATTENTION,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # told below, with all others
    )
    require_all(
        source,
        missing=found["missing_keys"],
        extra=found["unexpected_keys"],
        misshapen=map(str, found["mismatched_keys"]),
    )
    return VlmModel(config, net).eval()


def empty_vlm(config: VlmConfig) -> VlmModel:
    """Of these sizes, its weights not yet any model's."""
    package = transformers()
    parsed = package.AutoConfig.for_model(**config.architecture)
    return VlmModel(config, package.AutoModelForImageTextToText.from_config(parsed))


def check_vlm(config: VlmConfig, found: Mapping[str, tuple[int, ...]], source: str) -> None:
    """By their number, since names are those of any release. Raises CheckpointRefused."""
    with shapes_alone():
        net = empty_vlm(config).net
    expected = sum(weight.numel() for weight in net.parameters())
    is_tied = config.architecture.get("tie_word_embeddings")
    counted = sum(
        prod(shape) for name, shape in found.items() if not (is_tied and name == "lm_head.weight")
    )
    if counted != expected:
        raise misfit(source, f"it has {counted:,} weights, expected {expected:,}")


def require_prompt(config: VlmConfig, source: str) -> None:
    """Raises CheckpointRefused."""
    attached, image = config.attached, config.prompt.image
    template, tokenizer = attached[TEMPLATE], attached[TOKENIZER_FILE]
    if make_prompt(config.form, template, tokenizer, image) != config.prompt:
        raise CheckpointRefused(
            "a model's prompt is not the one that was converted",
            item=source,
            cause="form, chat template and tokenizer give other token ids than config.json records",
            remedy="convert the model again; its results then have another name",
        )


class Picture(NamedTuple):
    """What the language model takes of one picture: its rows and columns of tokens, and these, with
    those that go to deeper layers beside them."""

    rows: int
    columns: int
    tokens: Float[Tensor, "token all_widths"]


class VlmEncoder(nn.Module):
    """An ``ImageEncoder``, frozen. States are of one shape, and in fp32 in any precision: a first
    row tells how many rows and columns of tokens a picture has, what is beyond them is 0."""

    precision: Precision = "fp32"
    _digest: str | None = None

    def __init__(self, config: VlmConfig, visual: Any) -> None:
        super().__init__()
        self.config = config
        self.visual = visual

    def cast(self, precision: Precision) -> Self:
        self._digest, self.precision = self.digest, precision
        return self.to(DTYPES[precision])

    @property
    def pictures(self) -> SmartResize:
        return self.config.pictures

    @property
    def shape(self) -> tuple[int, int]:
        return self.config.states

    @property
    def device(self) -> torch.device:
        return next(self.visual.parameters()).device

    @property
    def digest(self) -> str:
        """Of its sizes and weights, as they were before any cast."""
        if self._digest is not None:
            return self._digest
        sizes = json.dumps(dict(self.config.vision), sort_keys=True, default=str)
        digest = hashlib.sha256(f"{sizes}{self.shape}".encode())
        for tensor in self.visual.state_dict().values():
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()

    def differing(self, other: object) -> list[str]:
        if not isinstance(other, VlmEncoder) or self.config.vision != other.config.vision:
            return ["sizes"]
        ours, theirs = self.visual.state_dict(), other.visual.state_dict()
        return [name for name in ours if not torch.equal(ours[name], theirs[name])]

    @torch.inference_mode()
    def see(self, pixels: UInt8[Tensor, "image row pixel 3"]) -> Float[Tensor, "image token width"]:
        unpacked = [self.pictures.unpack(one) for one in pixels.cpu().numpy()]
        patches = [self.patches(torch.from_numpy(one)) for one in unpacked]
        sides = [(one.shape[0], one.shape[1]) for one in unpacked]
        states = torch.zeros((len(pixels), *self.shape), device=self.device)
        if not unpacked:
            return states
        side = self.config.vision["patch_size"]
        grids = torch.tensor([(1, height // side, width // side) for height, width in sides])
        dtype = next(self.visual.parameters()).dtype
        put, grids = torch.cat(patches).to(self.device, dtype), grids.to(self.device)
        with rounded_products(self.precision):
            seen = self.visual(put, grid_thw=grids, return_dict=True)
        tokens = torch.cat([seen.pooler_output, *getattr(seen, "deepstack_features", ())], dim=-1)
        cell, start = self.pictures.size, 0
        for state, (height, width) in zip(states, sides, strict=True):
            rows, columns = height // cell, width // cell
            state[0, 0], state[0, 1] = rows, columns
            state[1 : 1 + rows * columns] = tokens[start : start + rows * columns]
            start += rows * columns
        return states

    def patches(
        self, picture: UInt8[Tensor, "height width 3"]
    ) -> Float[Tensor, "patch channel_time_patch"]:
        """As transformers' image processor makes them: cell by cell, within each row by row; a
        picture is a film of as many equal frames as a patch has."""
        vision, limits = self.config.vision, self.config.pixels
        side, merge = vision["patch_size"], vision["spatial_merge_size"]
        scaled = picture.float() / 255
        scaled = (scaled - torch.tensor(limits.mean)) / torch.tensor(limits.std)
        height, width = (length // (side * merge) for length in picture.shape[:2])
        cells = scaled.reshape(height, merge, side, width, merge, side, 3)
        patches = cells.permute(0, 3, 1, 4, 6, 2, 5)  # patch by patch: colour, row, column
        frames = patches.unsqueeze(5).expand(
            *patches.shape[:5], vision["temporal_patch_size"], side, side
        )
        return frames.reshape(height * width * merge**2, -1)


def pictures_in(states: Float[Tensor, "image token width"]) -> list[Picture]:
    """What a ``VlmEncoder`` has seen, unpadded."""
    sides: Int[Tensor, "image 2"] = states[:, 0, :2].round().long().cpu()
    return [
        Picture(rows, columns, state[1 : 1 + rows * columns])
        for state, (rows, columns) in zip(states, sides.tolist(), strict=True)
    ]
