"""BLIP's vision transformer: pixels to image tokens."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from cir_core.layers.config import VisionConfig

VIT_EPSILON = 1e-6

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def normalise(pixels: UInt8[Tensor, "image size size 3"]) -> Float[Tensor, "image 3 size size"]:
    """Bytes to the ViT's input: scaled to 0..1, then CLIP's mean and deviation."""
    scaled = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
    mean = torch.tensor(CLIP_MEAN, device=pixels.device)[:, None, None]
    std = torch.tensor(CLIP_STD, device=pixels.device)[:, None, None]
    return ((scaled - mean) / std).contiguous()


class VisionBlock(nn.Module):
    """Pre-norm transformer block, as timm's ViT (and so BLIP's)."""

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


class VisionTransformer(nn.Module):
    """BLIP's ViT. Frozen in both stages, so a gallery is encoded once for both."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
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
