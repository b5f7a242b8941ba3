"""What every foreign checkpoint needs: a table of names, and strict filling in both directions.

A converter is a ``KeyTable`` plus the few facts that shapes do not tell. Complaints are in the
names of the source, which are the ones the user can look up.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cir_core.errors import CheckpointRefused
from cir_core.families import ModelConfig, check_tensors, expected_shapes


@dataclass(frozen=True)
class Converted:
    """A checkpoint in our names, fp32. ``dropped`` lists the source keys that have no place here
    (buffers that any model can compute); every other source key is in ``tensors``."""

    config: ModelConfig
    tensors: dict[str, Tensor]
    dropped: tuple[str, ...]


WRAPPERS = ("module.", "_orig_mod.", "model.")
"""What DataParallel, ``torch.compile`` and Lightning put before every key of the model inside."""


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict without the wrappers' prefixes. One that is not on every key is none of a
    wrapper's, and stays."""
    found = dict(state)
    while prefix := next((one for one in WRAPPERS if _is_on_all(one, found)), ""):
        found = {key.removeprefix(prefix): tensor for key, tensor in found.items()}
    return found


def _is_on_all(prefix: str, state: Mapping[str, Tensor]) -> bool:
    return bool(state) and all(key.startswith(prefix) for key in state)


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
    shapes = expected_shapes(config)
    keys = {table.theirs(name): name for name in shapes if name not in lacking}
    expected = {key: shapes[name] for key, name in keys.items()}
    _require_floats(kept, source)
    floats = {key: tensor.to(torch.float32) for key, tensor in kept.items()}
    check_tensors(expected, floats, source)
    return Converted(config, {name: floats[key] for key, name in keys.items()}, dropped)


def restore(
    tensors: Mapping[str, Tensor],
    table: KeyTable,
    config: ModelConfig,
    source: str,
    *,
    counters: Mapping[str, int],
) -> dict[str, Tensor]:
    """``rename`` backwards: the model of ``config`` in the foreign names, fp32.

    The ``counters`` that ``rename`` dropped are made again, as the int64 row [0, 1, 2, ...].
    Raises CheckpointRefused naming tensors that are missing, extra or misshapen, and NonFiniteError
    for NaN or infinity.
    """
    check_tensors(expected_shapes(config), tensors, source)
    weights = {table.theirs(name): tensor.to(torch.float32) for name, tensor in tensors.items()}
    return weights | {key: torch.arange(length)[None] for key, length in counters.items()}


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
