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

from cir_core.images import normalise
from cir_core.models.config import Stage1Config
from cir_core.models.fusion import Stage1Model
from cir_core.models.tokenizer import TokenBatch, Tokenizer, pad_tokens
from cir_core.training.loop import Recipe, epoch_rows
from cir_core.training.losses import contrast


class PretrainRecipe(Recipe):
    """``masked`` is the share of words hidden for the masked-word loss. ``group`` consecutive
    images share a batch: where neighbours in the file look alike (the demo's families), they are
    the hard negatives from which contrast and matching learn details."""

    masked: float = 0.4
    group: int = 1


@dataclass(frozen=True)
class DescribedImages:
    """Pictures and the token ids of each one's descriptions."""

    pixels: UInt8[Tensor, "image size size 3"]
    descriptions: list[list[list[int]]]

    def digest(self) -> str:
        """sha256 of the pictures and their descriptions."""
        digest = hashlib.sha256(json.dumps(self.descriptions).encode())
        digest.update(self.pixels.numpy().tobytes())
        return digest.hexdigest()


class Pretraining(nn.Module):
    """The base model with what only its training needs."""

    def __init__(self, config: Stage1Config, data: DescribedImages, recipe: PretrainRecipe) -> None:
        super().__init__()
        torch.manual_seed(recipe.seed)
        self.model = Stage1Model(config)
        initialise(self.model)
        self.word_transform = nn.Linear(config.text.width, config.text.width)
        self.data, self.recipe = data, recipe
        self.tokenizer = Tokenizer(config.text.vocabulary)

    @property
    def trained(self) -> nn.Module:
        return self

    def losses(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        recipe = self.recipe
        rows = epoch_rows(
            len(self.data.pixels), recipe.batch, recipe.seed, step, group=recipe.group
        )
        texts = [self.data.descriptions[row] for row in rows]
        tokens = pad_tokens([choices[rng.integers(len(choices))] for choices in texts])
        image_tokens = self.model.vision(normalise(self.data.pixels[torch.from_numpy(rows)]))
        images = self.model.embed_images(image_tokens)
        alone = self.model.text(tokens.ids, tokens.lengths, None)
        texts_embedded = self.model.embed_queries(alone)
        contrasted = (
            contrast(texts_embedded, images, self.model.temperature)
            + contrast(images, texts_embedded, self.model.temperature)
        ) / 2
        matched, right = self._matching(tokens, image_tokens, images @ texts_embedded.T, rng)
        words = self._masked_words(tokens, image_tokens, rng)
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
        """Right pairs against each image's and each text's hard negative in the batch."""
        size = len(image_tokens)
        weights = (similarity.detach() / self.model.temperature.detach()).double()
        weights.fill_diagonal_(float("-inf"))
        wrong_text = _draw(weights.softmax(dim=1), rng)
        wrong_image = _draw(weights.T.softmax(dim=1), rng)
        same = torch.arange(size)
        text_rows = torch.cat([same, wrong_text, same])
        image_rows = torch.cat([same, same, wrong_image])
        z = self.model.fuse(
            tokens.ids[text_rows], tokens.lengths[text_rows], image_tokens[image_rows]
        )
        logits = self.model.matching_head(z[:, 0])
        answers = torch.cat([torch.ones(size), torch.zeros(2 * size)]).long()
        right = (logits.argmax(dim=1) == answers).float().mean()
        return functional.cross_entropy(logits, answers), right

    def _masked_words(
        self,
        tokens: TokenBatch,
        image_tokens: Float[Tensor, "image patch width"],
        rng: np.random.Generator,
    ) -> Tensor:
        places = torch.arange(tokens.ids.shape[1])
        inner = (places > 0) & (places < tokens.lengths[:, None] - 1)  # not [ENC], [SEP], padding
        drawn = torch.from_numpy(rng.random(tokens.ids.shape)) < self.recipe.masked
        hidden = drawn & inner
        if not hidden.any():  # short texts in a small batch: the mean over no word would be NaN
            return torch.zeros(())
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
