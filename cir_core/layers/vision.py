"""A vision transformer: pixels to image tokens."""

import hashlib
from functools import cache
from typing import Any, Self

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from cir_core.layers.config import VisionConfig
from cir_core.layers.precision import DTYPES, rounded_products
from cir_core.layers.preprocess import CHANNELS, CLIP_MEAN, CLIP_STD, Preprocess
from cir_core.types import Precision

VIT_EPSILON = 1e-6

Scaling = tuple[float, float, float]


def normalise(
    pixels: UInt8[Tensor, "image size size 3"], mean: Scaling = CLIP_MEAN, std: Scaling = CLIP_STD
) -> Float[Tensor, "image 3 size size"]:
    """Bytes to a ViT's input: scaled to 0..1, then by mean and deviation of each colour."""
    scaled = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
    centre, deviation = _of_colours(mean, pixels.device), _of_colours(std, pixels.device)
    return ((scaled - centre) / deviation).contiguous()


@cache
def _of_colours(values: Scaling, device: torch.device) -> Float[Tensor, "3 1 1"]:
    """Sent once: a copy to a GPU waits for all that the GPU has to do."""
    with torch.inference_mode(mode=False):
        return torch.tensor(values, device=device)[:, None, None]


class VisionBlock(nn.Module):
    """Pre-norm transformer block, as timm's ViT."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(config.width, eps=VIT_EPSILON)
        self.query_key_value = nn.Linear(config.width, 3 * config.width)
        self.output = nn.Linear(config.width, config.width)
        self.mlp_norm = nn.LayerNorm(config.width, eps=VIT_EPSILON)
        self.expand = nn.Linear(config.width, config.mlp_width)
        self.contract = nn.Linear(config.mlp_width, config.width)

    def forward(self, x: Float[Tensor, "image token width"]) -> Float[Tensor, "image token width"]:
        projected = self.query_key_value(self.attention_norm(x))
        # [image, token, 3·head·channel] -> three of [image, head, token, channel]
        query, key, value = projected.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.output(attended.transpose(1, 2).flatten(2))
        return x + self.contract(functional.gelu(self.expand(self.mlp_norm(x))))


class FrozenEncoder(nn.Module):
    """What ``ImageEncoder`` asks of any module that makes image tokens of pixels: frozen in both
    stages, so a gallery is encoded once for both."""

    config: Any
    position: nn.Parameter
    precision: Precision = "fp32"
    _digest: str | None = None

    def cast(self, precision: Precision) -> Self:
        self._digest, self.precision = self.digest, precision
        return self.to(DTYPES[precision])

    @property
    def pictures(self) -> Preprocess:
        return self.config.pictures

    @property
    def shape(self) -> tuple[int, int]:
        return self.config.tokens, self.config.width

    @property
    def device(self) -> torch.device:
        return self.position.device

    @property
    def digest(self) -> str:
        """sha256 of its sizes and weights, as they were before any cast."""
        if self._digest is not None:
            return self._digest
        digest = hashlib.sha256(self.config.model_dump_json().encode())
        for tensor in self.state_dict().values():
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()

    def differing(self, other: object) -> list[str]:
        if not isinstance(other, FrozenEncoder) or self.config != other.config:
            return ["sizes"]
        ours, theirs = self.state_dict(), other.state_dict()
        return [name for name in ours if not torch.equal(ours[name], theirs[name])]

    def see(self, pixels: UInt8[Tensor, "image size size 3"]) -> Float[Tensor, "image token width"]:
        """Image tokens of crops as they were decoded."""
        scaled = normalise(pixels, self.pictures.mean, self.pictures.std)
        with rounded_products(self.precision):
            tokens: Tensor = self(scaled.to(self.position.dtype))
        return tokens


class VisionTransformer(FrozenEncoder):
    """An ``ImageEncoder``: timm's ViT, as BLIP has it."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch = nn.Conv2d(CHANNELS, config.width, config.patch_size, stride=config.patch_size)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.width))
        self.position = nn.Parameter(torch.zeros(1, config.tokens, config.width))
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=VIT_EPSILON)

    def forward(
        self, pixels: Float[Tensor, "image 3 size size"]
    ) -> Float[Tensor, "image token width"]:
        """Image tokens: [CLS] first, then the patches row by row, after the final LayerNorm."""
        patches = self.patch(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches], dim=1) + self.position
        for block in self.blocks:
            x = block(x)
        return self.norm(x)
