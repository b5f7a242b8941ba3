"""What a vision-language model costs, counted: FLOPs, as ``cir_core.layers.cost`` counts.

The last product, of a hidden state and one row, is left out: some thousand FLOPs a pair. Pictures
are counted as the largest that the limits allow: how large each one is, a config cannot know. A
forecast of time is not touched by that, since speeds are measured by the same count.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from cir_core.layers.preprocess import CHANNELS
from cir_core.ports import Load


@dataclass(frozen=True)
class Tower:
    """The vision encoder: ``merged`` patches make a token of the language model, and so do
    ``mergers`` of its layers. A patch looks at ``window`` others, in ``full`` blocks at all."""

    depth: int
    width: int
    mlp: int
    """Weights of a block's feed-forward."""
    patch: int
    """Numbers of a patch."""
    merged: int
    mergers: int
    out: int
    window: int | None
    full: int

    @classmethod
    def of(cls, model_type: str, vision: Mapping[str, Any]) -> Self:
        width = vision["embed_dim"] if model_type == "qwen2_vl" else vision["hidden_size"]
        hidden = vision.get("intermediate_size") or width * vision["mlp_ratio"]
        gated = model_type == "qwen2_5_vl"
        side, depth = vision["patch_size"], vision["depth"]
        return cls(
            depth=depth,
            width=width,
            mlp=(3 if gated else 2) * width * hidden,
            patch=CHANNELS * vision["temporal_patch_size"] * side**2,
            merged=vision["spatial_merge_size"] ** 2,
            mergers=1 + len(vision.get("deepstack_visual_indexes", ())),
            out=vision["hidden_size"] if model_type == "qwen2_vl" else vision["out_hidden_size"],
            window=(vision["window_size"] // side) ** 2 if gated else None,
            full=len(vision["fullatt_block_indexes"]) if gated else depth,
        )

    def flops(self, tokens: int) -> int:
        """Of a picture of so many merged tokens, whose windows are whole."""
        patches, wide = self.merged * tokens, self.merged * self.width
        linear = 2 * patches * (self.patch * self.width)
        linear += 2 * patches * self.depth * (4 * self.width**2 + self.mlp)
        linear += 2 * tokens * self.mergers * wide * (wide + self.out)
        window = min(patches, self.window or patches)
        looks = self.full * patches + (self.depth - self.full) * window
        return linear + 4 * patches * looks * self.width


@dataclass(frozen=True)
class Language:
    """``weights`` are those of a layer's linear maps, ``looking`` the width of all heads."""

    layers: int
    weights: int
    looking: int

    @classmethod
    def of(cls, text: Mapping[str, Any]) -> Self:
        width, heads = text["hidden_size"], text["num_attention_heads"]
        head = text.get("head_dim") or width // heads
        attention = 2 * width * head * (heads + (text["num_key_value_heads"] or heads))
        return cls(
            layers=text["num_hidden_layers"],
            weights=attention + 3 * width * text["intermediate_size"],
            looking=heads * head,
        )

    def flops(self, tokens: float, looks: float) -> float:
        """Of tokens that look so often at others, all of them together; a kernel that leaves out
        what comes later does half of the looking."""
        return self.layers * (2 * tokens * self.weights + 4 * looks * self.looking)


@dataclass(frozen=True)
class Costs:
    """Of prompts with ``fixed`` tokens beside two pictures of ``picture`` tokens and a text, whose
    first ``shared`` tokens are computed once for all pairs, or once for each candidate."""

    language: Language
    picture: int
    fixed: int
    shared: int
    for_candidate: bool

    def beginning(self) -> float:
        return 0.0 if self.for_candidate else self._prefill()

    def scoring(self, load: Load) -> float:
        """Each pair's own tokens look at all of its prompt."""
        pairs, tokens, looks = load.sums
        own, whole = self._fixed - self.shared, self._fixed
        own_tokens = pairs * own + tokens
        own_looks = pairs * own * whole + (own + whole) * tokens + looks
        begun = float((load.pairs > 0).sum()) * self._prefill() if self.for_candidate else 0.0
        return begun + self.language.flops(own_tokens, own_looks)

    def plain(self, load: Load) -> float:
        """Without the pictures' own states, which the encoder's count tells."""
        pairs, tokens, looks = load.sums
        whole = self._fixed
        all_looks = pairs * whole**2 + 2 * whole * tokens + looks
        return self.language.flops(pairs * whole + tokens, all_looks)

    @property
    def _fixed(self) -> int:
        return self.fixed + 2 * self.picture

    def _prefill(self) -> float:
        return self.language.flops(self.shared, self.shared**2)
