"""The sizes of a model, told from the shapes of a foreign checkpoint; and which ones can be."""

import re
from collections import Counter
from collections.abc import Mapping
from math import isqrt
from typing import Any

from torch import Tensor

from cir_core.checkpoints.conversion import KeyTable
from cir_core.errors import CheckpointRefused
from cir_core.families import TrainedConfig
from cir_core.layers.config import HEAD_WIDTH, VisionConfig, Vocabulary
from cir_core.rerankers.dual.config import Stage2Config
from cir_core.rerankers.dual.variant import PAPERS

VOCABULARIES: Mapping[int, Vocabulary] = {30524: "bert-base-uncased"}
"""By their size: 30,522 words of bert-base-uncased, and BLIP's [DEC] and [ENC]."""


class Sizes:
    """Reads a model's sizes off the shapes of a foreign state dict.

    Where several tensors hold the same size the majority decides, so that one misshapen tensor
    is later reported by its own name and not as a fault of all others.
    """

    def __init__(self, state: Mapping[str, Tensor], table: KeyTable, source: str) -> None:
        self._table, self._source = table, source
        names = {key: table.ours(key) for key in state}
        self._shapes = {
            ours: tuple(state[theirs].shape) for theirs, ours in names.items() if ours is not None
        }

    def vision(self, heads: int | None = None) -> dict[str, int]:
        """Fields of ``VisionConfig``; ``heads`` when the source says them."""
        width = self._vote(
            ("vision.norm.weight", 0), ("vision.norm.bias", 0), ("vision.cls_token", 2)
        )
        patch = self._vote(("vision.patch.weight", 2), ("vision.patch.weight", 3))
        patches = self._vote(("vision.position", 1)) - 1
        side = isqrt(max(patches, 0))
        if side == 0 or side * side != patches:
            raise self._refused("vision.position", f"{patches} patches do not make a square")
        return {
            "image_size": side * patch,
            "patch_size": patch,
            "width": width,
            "depth": self._blocks("vision.blocks", "expand.weight"),
            "heads": heads or self._heads("vision.norm.weight", width),
            "mlp_width": self._hidden("vision.blocks.0"),
        }

    def text(self, prefix: str, heads: int | None = None) -> dict[str, int | str]:
        """Fields of ``TextConfig`` but ``dropout``, which no checkpoint holds."""
        embeddings = f"{prefix}embeddings"
        width = self._vote(
            (f"{embeddings}.norm.weight", 0),
            (f"{embeddings}.norm.bias", 0),
            (f"{embeddings}.position.weight", 1),
        )
        words = self._vote((f"{embeddings}.word.weight", 0))
        if words not in VOCABULARIES:
            known = ", ".join(f"{size} ({name})" for size, name in VOCABULARIES.items())
            fault = f"a vocabulary of {words} words is unknown; known: {known}"
            raise self._refused(f"{embeddings}.word.weight", fault)
        return {
            "vocabulary": VOCABULARIES[words],
            "vocabulary_size": words,
            "width": width,
            "layers": self._blocks(f"{prefix}layers", "feed_forward.expand.weight"),
            "heads": heads or self._heads(f"{embeddings}.norm.weight", width),
            "feed_forward": self._hidden(f"{prefix}layers.0.feed_forward"),
            "positions": self._vote((f"{embeddings}.position.weight", 0)),
        }

    def embedding(self) -> int:
        return self._vote(
            ("vision_projection.weight", 0),
            ("vision_projection.bias", 0),
            ("text_projection.weight", 0),
            ("text_projection.bias", 0),
        )

    def of_stage1(self) -> dict[str, Any]:
        """Fields of ``Stage1Config`` but ``kind``."""
        text = self.text("text.")
        return {"vision": self.vision(), "text": text, "embedding": self.embedding()}

    def merge_from(self) -> int:
        """From where on layers hold a merge (their number when none does).

        The split with the fewest exceptions, so that those are named missing or extra.
        """
        layers = self._blocks("layers", "feed_forward.expand.weight")
        merging = {
            int(found[1])
            for name in self._shapes
            if (found := re.match(r"layers\.([0-9]+)\.merge\.", name))
        }

        def exceptions(start: int) -> int:
            return len(merging.symmetric_difference(range(start, layers)))

        return min(range(layers + 1), key=exceptions)

    def _vote(self, *witnesses: tuple[str, int]) -> int:
        """The size on which most of the (name, axis) agree; the first ones win a tie."""
        votes = [
            self._shapes[name][axis]
            for name, axis in witnesses
            if name in self._shapes and len(self._shapes[name]) > axis
        ]
        if not votes:
            raise self._refused(witnesses[0][0], "the tensor is missing or has too few dimensions")
        size = Counter(votes).most_common(1)[0][0]
        if size < 1:
            raise self._refused(witnesses[0][0], "the tensor is empty")
        return size

    def _blocks(self, container: str, witness: str) -> int:
        """One more than the highest number, so that a lacking block's keys are named missing.

        A number with a few stray keys is no block: those are named extra.
        """
        block = re.compile(re.escape(container) + r"\.([0-9]+)\.")
        sizes = Counter(int(found[1]) for name in self._shapes if (found := block.match(name)))
        most = max(sizes.values(), default=0)
        blocks = max((number for number, size in sizes.items() if 2 * size >= most), default=-1) + 1
        if not 0 < blocks <= len(self._shapes):  # a bogus number must not build a huge model
            fault = f"{len(sizes)} blocks, the last with number {blocks - 1}"
            raise self._refused(f"{container}.0.{witness}", fault)
        return blocks

    def _hidden(self, block: str) -> int:
        return self._vote(
            (f"{block}.expand.weight", 0),
            (f"{block}.expand.bias", 0),
            (f"{block}.contract.weight", 1),
        )

    def _heads(self, witness: str, width: int) -> int:
        if width % HEAD_WIDTH:
            raise self._refused(witness, f"width {width} does not divide into heads of 64")
        return width // HEAD_WIDTH

    def _refused(self, our_name: str, fault: str) -> CheckpointRefused:
        return CheckpointRefused(
            "a checkpoint does not tell its sizes",
            item=self._source,
            cause=f"{self._table.theirs(our_name)}: {fault}",
            remedy="check that the file is a whole checkpoint of this architecture",
        )


def require_told_by_shapes(config: TrainedConfig, source: str) -> None:
    """Would ``Sizes`` find this ``config``, but for dropout, in the shapes of its model?

    Raises CheckpointRefused naming every size that a checkpoint of nothing but tensors would lose:
    other heads than those of 64, another vocabulary.
    """
    parts: Mapping[str, Any] = {"vision": config.vision, "text": config.text}
    faults = [
        f"{name} has {part.heads} heads at width {part.width}, where it reads width / {HEAD_WIDTH}"
        for name, part in parts.items()
        if part.heads * HEAD_WIDTH != part.width
    ]
    words = config.text.vocabulary_size
    if VOCABULARIES.get(words) != config.text.vocabulary:
        known = ", ".join(f"{name} of {size} words" for size, name in VOCABULARIES.items())
        faults.append(f"the vocabulary is {config.text.vocabulary} of {words} words, not {known}")
    if not isinstance(config.vision, VisionConfig):
        faults.append(f"its image tokens are of a {config.vision.kind} tower")
    elif config.vision.fit != "pad" or config.text.marks != "read":
        faults.append(f"pictures are fit by {config.vision.fit}, marks are {config.text.marks}")
    if isinstance(config, Stage2Config) and not 0 <= config.merge_from <= config.text.layers:
        faults.append(f"merge_from is {config.merge_from} of {config.text.layers} layers")
    if isinstance(config, Stage2Config) and config.prior:
        faults.append(f"its scores have a prior, {config.prior:g} times stage 1's cosine")
    if isinstance(config, Stage2Config) and config.variant != PAPERS:
        faults.append(f"it is a variant of the published model: {config.variant}")
    if faults:
        raise CheckpointRefused(
            "the published format cannot express this model",
            item=source,
            cause="; ".join(faults),
            remedy="keep it as a model folder: only models of the published kind can be exchanged",
        )
