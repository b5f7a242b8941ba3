"""Modules without memory, to ask for their tensors' shapes; and what does not have them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from cir_core.errors import CheckpointRefused

_SHOWN = 5


@contextmanager
def shapes_alone() -> Iterator[None]:
    """What is built within lies on the meta device: shapes and no numbers."""
    with torch.device("meta"), _Undrawn():
        yield


class _Undrawn(TorchFunctionMode):
    """Leaves out the draws of an embedding: on the meta device they have no effect, and torch
    imports its compiler for them, which takes 4 s."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if func is nn.init.normal_:
            return kwargs["tensor"]
        return func(*args, **(kwargs or {}))


def require_all(
    source: str, *, missing: Iterable[str], extra: Iterable[str], misshapen: Iterable[str]
) -> None:
    """Of a model's tensors. Raises CheckpointRefused with the first of each kind of fault."""
    faults = [
        f"{len(names)} {fault}: {', '.join(names[:_SHOWN])}"
        for fault, names in (
            ("missing", sorted(missing)),
            ("extra", sorted(extra)),
            ("misshapen", list(misshapen)),
        )
        if names
    ]
    if faults:
        raise misfit(source, "; ".join(faults))


def misfit(source: str, cause: str) -> CheckpointRefused:
    return CheckpointRefused(
        "a checkpoint does not fit the model",
        item=source,
        cause=cause,
        remedy="check that the file belongs to this stage and architecture, and is whole",
    )
