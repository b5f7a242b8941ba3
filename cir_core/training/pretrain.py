"""Pre-training of the base model on described images, as BLIP's: contrast, matching, masked words.

BLIP's third loss generates the caption; here a share of its words is masked and must be told from
the picture, which asks the same of the cross-attention and needs no decoder.
"""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional

from cir_core.layers.wordpiece import TokenBatch, pad_tokens, tokenizer_of
from cir_core.retrievers.blip.config import Stage1Config
from cir_core.retrievers.blip.fusion import Stage1Model
from cir_core.training.batches import epoch_rows
from cir_core.training.gradients import Splits
from cir_core.training.losses import contrast
from cir_core.training.recipes import PretrainRecipe


@dataclass(frozen=True)
class DescribedImages:
    """Pictures and the token ids of each one's descriptions. ``catalogue`` is each one's entry in
    a catalogue, which names its attributes in a fixed order, for data that have one."""

    pixels: UInt8[Tensor, "image size size 3"]
    descriptions: list[list[list[int]]]
    catalogue: list[list[int]] | None = None

    def digest(self) -> str:
        """sha256 of the pictures and their texts."""
        digest = hashlib.sha256(json.dumps([self.descriptions, self.catalogue]).encode())
        digest.update(self.pixels.numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class DescribedBatch:
    """Pictures with one description each, the texts whose words are hidden (the descriptions, where
    there is no catalogue), and what the step draws beside them."""

    pixels: UInt8[Tensor, "image size size 3"]
    tokens: TokenBatch
    hiding: TokenBatch
    rng: np.random.Generator

    def __len__(self) -> int:
        return len(self.pixels)

    def part(self, rows: slice) -> "DescribedBatch":
        return DescribedBatch(
            self.pixels[rows], self.tokens.rows(rows), self.hiding.rows(rows), self.rng
        )


class Pretraining(nn.Module):
    """The base model with what only its training needs. Its losses compare all images and texts of
    a batch, and matching reads pairs that contrast chooses: a batch is one piece."""

    splits: Splits = "never"

    def __init__(
        self,
        config: Stage1Config,
        data: DescribedImages,
        recipe: PretrainRecipe,
        device: torch.device,
    ) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.model = Stage1Model(config)
        initialise(self.model)
        self.word_transform = nn.Linear(config.text.width, config.text.width)
        self.data, self.recipe, self.device = data, recipe, device
        self.tokenizer = tokenizer_of(config.text)
        self.to(device)

    @property
    def trained(self) -> nn.Module:
        return self

    def __len__(self) -> int:
        return len(self.data.pixels)

    def draw(self, rng: np.random.Generator, step: int) -> DescribedBatch:
        recipe = self.recipe
        rows = epoch_rows(len(self), recipe.batch, recipe.seed, step, group=recipe.group)
        texts = [self.data.descriptions[row] for row in rows]
        tokens = pad_tokens([choices[rng.integers(len(choices))] for choices in texts])
        catalogue = self.data.catalogue
        hiding = tokens if catalogue is None else pad_tokens([catalogue[row] for row in rows])
        return DescribedBatch(self.data.pixels[torch.from_numpy(rows)], tokens, hiding, rng)

    def represent(self, batch: DescribedBatch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The three losses themselves, and how often matching was right."""
        tokens = batch.tokens.to(self.device)
        image_tokens = self.model.vision.see(batch.pixels.to(self.device))
        images = self.model.embed_images(image_tokens)
        alone = self.model.text(tokens.ids, tokens.lengths, None)
        texts = self.model.embed_queries(alone)
        contrasted = (
            contrast(texts, images, self.model.temperature)
            + contrast(images, texts, self.model.temperature)
        ) / 2
        matched, right = self._matching(tokens, image_tokens, images @ texts.T, batch.rng)
        words = self._masked_words(batch.hiding.to(self.device), image_tokens, batch.rng)
        return contrasted, matched, right, words

    def losses(
        self,
        _batch: DescribedBatch,
        representations: tuple[Tensor, Tensor, Tensor, Tensor],
    ) -> dict[str, Tensor]:
        contrasted, matched, right, words = representations
        return {
            "loss": contrasted + matched + words,
            "contrast": contrasted,
            "matching": matched,
            "matching_accuracy": right,
            "words": words,
        }

    def _matching(
        self,
        tokens: TokenBatch,
        image_tokens: Float[Tensor, "image patch width"],
        similarity: Float[Tensor, "image text"],
        rng: np.random.Generator,
    ) -> tuple[Tensor, Tensor]:
        """Right pairs against each image's and each text's hard negative in the batch, for the
        first ``matched`` of the batch (whose order is random)."""
        size = min(self.recipe.matched, len(image_tokens))
        weights = (similarity.detach() / self.model.temperature.detach()).double().cpu()
        weights.fill_diagonal_(float("-inf"))
        wrong_text = _draw(weights[:size].softmax(dim=1), rng)
        wrong_image = _draw(weights.T[:size].softmax(dim=1), rng)
        same = torch.arange(size)
        text_rows = torch.cat([same, wrong_text, same])
        image_rows = torch.cat([same, same, wrong_image])
        z = self.model.fuse(
            tokens.ids[text_rows], tokens.lengths[text_rows], image_tokens[image_rows]
        )
        logits = self.model.matching_head(z[:, 0])
        answers = torch.cat([torch.ones(size), torch.zeros(2 * size)]).long().to(self.device)
        right = (logits.argmax(dim=1) == answers).float().mean()
        return functional.cross_entropy(logits, answers), right

    def _masked_words(
        self,
        tokens: TokenBatch,
        image_tokens: Float[Tensor, "image patch width"],
        rng: np.random.Generator,
    ) -> Tensor:
        places = torch.arange(tokens.ids.shape[1], device=self.device)
        inner = (places > 0) & (places < tokens.lengths[:, None] - 1)  # not [ENC], [SEP], padding
        drawn = torch.from_numpy(rng.random(tokens.ids.shape)) < self.recipe.masked
        hidden = drawn.to(self.device) & inner
        if not hidden.any():  # short texts in a small batch: the mean over no word would be NaN
            return torch.zeros((), device=self.device)
        masked = tokens.ids.masked_fill(hidden, self.tokenizer.mask_token)
        z = self.model.fuse(masked, tokens.lengths, image_tokens)
        guesses = functional.gelu(self.word_transform(z[hidden])) @ self._word_table().T
        return functional.cross_entropy(guesses, tokens.ids[hidden])

    def _word_table(self) -> Tensor:
        return self.model.text.embeddings.word.weight


def initialise(model: nn.Module) -> None:
    """Xavier for linear layers, a narrow normal for embeddings and tokens, as BERT and ViT use."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=0.02)
    for name, parameter in model.named_parameters():
        if name.endswith(("cls_token", "vision.position")):
            nn.init.trunc_normal_(parameter, std=0.02)


def _draw(
    probabilities: Float[Tensor, "row column"], rng: np.random.Generator
) -> Int[Tensor, " row"]:
    """One column a row, by inverse transform sampling from numpy's generator."""
    drawn = torch.from_numpy(rng.random(len(probabilities)))[:, None]
    columns = (probabilities.cumsum(dim=1) < drawn).sum(dim=1)
    return columns.clamp(max=probabilities.shape[1] - 1)
