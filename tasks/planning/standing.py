"""What is there of a stage, and why the rest is not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from storage.differences import why_missing
from tasks.stages.output import Output
from tasks.stages.stage import Stage

State = Literal["done", "begun", "to do"]


@dataclass(frozen=True)
class Standing:
    """``why`` it is not done, in a few words; ``left`` is how much of each shard of one that was
    begun, None where that is all of all."""

    state: State
    why: str = ""
    left: Mapping[str, float] | None = None

    @property
    def is_done(self) -> bool:
        return self.state == "done"


def standing_of(stage: Stage[Any]) -> Standing:
    """Asking repairs, as ``Artifact.is_done``."""
    view = stage.made
    if view.is_done:
        return Standing("done")
    if not view.was_begun:
        return Standing("to do", why_missing(stage.store, stage.identity))
    left, size = stage.left(), {shard: stage.size(shard) for shard in stage.shards()}
    total = sum(size.values())
    done = round(total - sum(share * size[shard] for shard, share in left.items()))
    if 0 < done < total:
        return Standing("begun", f"{done:,} of {total:,} {stage.unit} are done", left)
    return Standing("to do", "what is there is not whole", left)


def standing_of_output(output: Output) -> Standing:
    """Of files that are made of an evaluation."""
    return Standing("done") if output.is_done else Standing("to do", output.missing)
