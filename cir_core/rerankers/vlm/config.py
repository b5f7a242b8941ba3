"""A vision-language model's ``config.json``."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from jaxtyping import Int
from pydantic import PositiveInt, model_validator

from cir_core.layers.config import Frozen
from cir_core.layers.smart_resize import SmartResize
from cir_core.layers.token_files import TOKENIZER_FILE
from cir_core.ports import Load, RetrieverConfig
from cir_core.rerankers.vlm.cost import Costs, Language, Tower
from cir_core.rerankers.vlm.forms import Form
from cir_core.rerankers.vlm.prompt import Prompt, PromptTokenizer

ARCHITECTURES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
"""Of transformers, by their ``model_type``: whose vision encoder's states can be kept, and whose
positions and prefixes the tests hold to transformers' own."""

TEMPLATE = "chat_template.jinja"
"""Beside ``config.json`` and ``TOKENIZER_FILE``; all three are the model's."""


class Pixels(Frozen):
    """The limits of a picture's size, and the scaling of its bytes."""

    least: PositiveInt
    most: PositiveInt
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"{self.least} pixels at least and {self.most} at most")
        return self


class VlmConfig(Frozen):
    """``architecture`` is transformers' config; ``weights`` the sha256 of the tensors that were
    converted. ``prompt`` follows from the form, the template and the tokenizer, and is checked
    against them when the model is opened. ``attached``: the last two, by their files' names."""

    kind: Literal["vlm"]
    architecture: Mapping[str, Any]
    form: Form
    prompt: Prompt
    pixels: Pixels
    weights: str
    attached: Mapping[str, str]
    prior: float = 0.0

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.model_type not in ARCHITECTURES:
            raise ValueError(f"architecture {self.model_type!r}; known: {', '.join(ARCHITECTURES)}")
        missing = {TOKENIZER_FILE, TEMPLATE} - self.attached.keys()
        if missing:
            raise ValueError(f"without {', '.join(sorted(missing))}")
        if self.pixels.most < self.pictures.size**2:
            raise ValueError(f"pixels.most: less than one token, {self.pictures.size}² pixels")
        if self.positions < 1:
            raise ValueError(f"pixels.most: two pictures of {self.pictures.most_cells} tokens")
        return self

    @property
    def model_type(self) -> str:
        return str(self.architecture["model_type"])

    @property
    def vision(self) -> Mapping[str, Any]:
        vision: Mapping[str, Any] = self.architecture["vision_config"]
        return vision

    @property
    def text(self) -> Mapping[str, Any]:
        text: Mapping[str, Any] = self.architecture["text_config"]
        return text

    @cached_property
    def pictures(self) -> SmartResize:
        cell = self.vision["patch_size"] * self.vision["spatial_merge_size"]
        limits = self.pixels
        return SmartResize(
            cell, mean=limits.mean, std=limits.std, min_pixels=limits.least, max_pixels=limits.most
        )

    @property
    def candidate_first(self) -> bool:
        return self.form.pictures[0] == "candidate"

    @property
    def vocabulary(self) -> str:
        return f"{self.model_type} ({self.text['vocab_size']} words)"

    @property
    def positions(self) -> int:
        """What the model's context leaves to a text beside two pictures of any size."""
        context: int = self.text["max_position_embeddings"]
        return context - self.prompt.fixed - 2 * self.pictures.most_cells

    def tokenizer(self) -> PromptTokenizer:
        return PromptTokenizer(self.attached[TOKENIZER_FILE], self.prompt)

    @property
    def state_width(self) -> int:
        return 0

    @property
    def states(self) -> tuple[int, int]:
        """Rows and width of a picture's states: its sides, then as many tokens as the largest
        has."""
        return 1 + self.pictures.most_cells, self.tower.mergers * self.tower.out

    @property
    def image_width(self) -> int:
        rows, width = self.states
        return rows * width

    @property
    def reads_references(self) -> bool:
        return True

    def objections(self, retriever: RetrieverConfig) -> list[str]:
        """It reads texts and pictures itself."""
        return []

    @cached_property
    def tower(self) -> Tower:
        return Tower.of(self.model_type, self.vision)

    @cached_property
    def costs(self) -> Costs:
        shared = self.prompt.head.index(self.prompt.image)
        picture = self.pictures.most_cells
        return Costs(
            language=Language.of(self.text),
            picture=picture,
            fixed=self.prompt.fixed,
            shared=shared + picture if self.candidate_first else shared,
            for_candidate=self.candidate_first,
        )

    def seeing_flops(self) -> int:
        return self.tower.flops(self.pictures.most_cells)

    def beginning_flops(self, lengths: Int[np.ndarray, " query"]) -> float:
        """What all prompts begin with, once for all of them."""
        return self.costs.beginning() if len(lengths) else 0.0

    def scoring_flops(self, load: Load) -> float:
        return self.costs.scoring(load)

    def plain_flops(self, load: Load) -> float:
        return self.costs.plain(load)
