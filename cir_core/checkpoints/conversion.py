"""What every foreign checkpoint needs: a table of names, sizes told from shapes, strict filling.

A converter is a ``KeyTable`` plus the few facts that shapes do not tell. Complaints are in the
foreign names, which are the ones the user can look up.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor

from cir_core.errors import CheckpointRefused
from cir_core.models.config import HEAD_WIDTH, ModelConfig, Stage1Config, Vocabulary
from cir_core.models.fusion import Stage1Model
from cir_core.models.load import check_tensors
from cir_core.models.reranker import Stage2Model

VOCABULARIES: Mapping[int, Vocabulary] = {30524: "bert-base-uncased"}
"""By their size: 30,522 words of bert-base-uncased, and BLIP's [DEC] and [ENC]."""


@dataclass(frozen=True)
class Converted:
    """A checkpoint in our names, fp32. ``dropped`` lists the source keys that have no place here
    (buffers that any model can compute); every other source key is in ``tensors``."""

    config: ModelConfig
    tensors: dict[str, Tensor]
    dropped: tuple[str, ...]


class KeyTable:
    """Names of another code base and ours, one to one, readable in both directions.

    An entry maps a module (its ``.weight`` and ``.bias`` follow) or a bare parameter. ``{layer}``
    stands for any block's number.
    """

    def __init__(self, entries: Mapping[str, str]) -> None:
        self._to_ours = [(_pattern(theirs), ours) for theirs, ours in entries.items()]
        self._to_theirs = [(_pattern(ours), theirs) for theirs, ours in entries.items()]

    def ours(self, their_key: str) -> str | None:
        """Our name of a foreign key, or None when the table does not know it."""
        return _translate(their_key, self._to_ours)

    def theirs(self, our_name: str) -> str:
        """The foreign key of one of our tensors. Raises KeyError when the table lacks it."""
        key = _translate(our_name, self._to_theirs)
        if key is None:
            raise KeyError(our_name)
        return key


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


def rename(
    state: Mapping[str, Tensor],
    table: KeyTable,
    config: ModelConfig,
    source: str,
    *,
    counters: Mapping[str, int],
    lacking: Collection[str] = (),
) -> Converted:
    """Every tensor of the model of ``config`` from ``state``, in our names and fp32.

    ``counters`` are source buffers that only count 0, 1, 2, ... up to a length: dropped, when
    that is true. ``lacking`` names of ours are not expected.
    Raises CheckpointRefused naming source keys that are missing, extra, misshapen or not floating
    point, and NonFiniteError for NaN or infinity.
    """
    dropped = tuple(sorted(key for key in state if key in counters))
    for key in dropped:
        _require_counting(key, state[key], counters[key], source)
    kept = {key: tensor for key, tensor in state.items() if key not in counters}
    shapes = _shapes_of(config)
    keys = {table.theirs(name): name for name in shapes if name not in lacking}
    expected = {key: shapes[name] for key, name in keys.items()}
    _require_floats(kept, source)
    floats = {key: tensor.to(torch.float32) for key, tensor in kept.items()}
    check_tensors(expected, floats, source)
    return Converted(config, {name: floats[key] for key, name in keys.items()}, dropped)


def _shapes_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):  # shapes only: no memory, no random numbers
        model = Stage1Model(config) if isinstance(config, Stage1Config) else Stage2Model(config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _require_counting(key: str, buffer: Tensor, length: int, source: str) -> None:
    if not torch.equal(buffer.flatten().to(torch.float64), torch.arange(length).double()):
        raise CheckpointRefused(
            "a checkpoint's buffer does not fit its model",
            item=source,
            cause=f"{key} of shape {tuple(buffer.shape)} does not count from 0 to {length - 1}",
            remedy="check that the file belongs to this stage and architecture",
        )


def _require_floats(state: Mapping[str, Tensor], source: str) -> None:
    others = [f"{key} ({t.dtype})" for key, t in state.items() if not t.is_floating_point()]
    if others:
        raise CheckpointRefused(
            "a checkpoint holds tensors that are not floating point weights",
            item=source,
            cause=f"{len(others)} tensors: {', '.join(others[:5])}",
            remedy="use the unquantised checkpoint",
        )


def _pattern(template: str) -> re.Pattern[str]:
    body = re.escape(template).replace(r"\{layer\}", "(?P<layer>[0-9]{1,4})")
    return re.compile(body + r"(?P<leaf>\.weight|\.bias)?")


def _translate(name: str, table: list[tuple[re.Pattern[str], str]]) -> str | None:
    for pattern, template in table:
        if found := pattern.fullmatch(name):
            groups = found.groupdict(default="")
            return template.replace("{layer}", groups.get("layer", "")) + groups["leaf"]
    return None
