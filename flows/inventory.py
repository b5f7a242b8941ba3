"""What of a run is in its store, and what of it is left to make."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from cir_core.planning.effort import Left
from flows.graph import Graph, name_of
from flows.inputs import Inputs
from storage.runs import finished
from storage.views import Ingested
from tasks.feed.pictures import distinct_pictures
from tasks.machine import Machine
from tasks.planning.known import count_tokens
from tasks.planning.standing import Standing, standing_of, standing_of_output
from tasks.shards import rows_in
from tasks.stages.probe import Probe
from tasks.stages.rerank import Rerank
from tasks.stages.tokens import Tokens, tokens_in


class Kept(NamedTuple):
    """Pictures whose tokens are there, and others of which they are in an earlier artifact."""

    here: int
    elsewhere: int = 0


@dataclass(frozen=True)
class Inventory:
    """By stage, in their order. Of so many ``pictures``, so many have their tokens ``kept``, and,
    ``again``, those of stage 2's own encoder, if these are to be kept; the catalog has other
    ``runs``."""

    standings: dict[str, Standing]
    pictures: int
    kept: Kept
    again: Kept | None
    runs: int

    def lacks(self, *stages: str) -> bool:
        """Whether any is to be made of those stages that the run has."""
        mine = [self.standings[stage] for stage in stages if stage in self.standings]
        return not all(standing.is_done for standing in mine)

    def has(self, stage: str) -> bool:
        return stage in self.standings and self.standings[stage].is_done

    def left(self, graph: Graph) -> Left:
        first = graph.filtering
        return Left(
            stages=frozenset(name for name in self.standings if self.lacks(name)),
            encoded=self._share(first.encode.name),
            fused=self._share(first.fuse.name),
            scored=self._share(name_of(Rerank)),
            kept=self.kept.here,
            kept_again=None if self.again is None else self.again.here,
            copied=self.kept.elsewhere,
            copied_again=0 if self.again is None else self.again.elsewhere,
            runs=self.runs,
        )

    def _share(self, stage: str) -> np.ndarray:
        """How much of each picture's work is left; nothing of a stage that the run has not."""
        standing = self.standings.get(stage, Standing("done"))
        left = {} if standing.is_done else standing.left
        share = np.ones(self.pictures) if left is None else np.zeros(self.pictures)
        for shard, of_shard in (left or {}).items():
            rows = rows_in(shard)
            share[rows.start : rows.stop] = of_shard
        return share


def take_inventory(inputs: Inputs, ingested: Ingested, graph: Graph) -> Inventory:
    """What is there, and what is left."""
    pictures = len(distinct_pictures(ingested.read("images")))
    stages = {stage.name: standing_of(stage) for stage in graph.stages}
    outputs = {output.name: standing_of_output(output) for output in graph.outputs}
    if not all(stages[one.name].is_done for one in graph.stages if isinstance(one, Probe)):
        outputs = {one.name: Standing("to do", one.missing) for one in graph.outputs}
    tokens, kept, again = {}, Kept(0), None
    if not all(stages[one.name].is_done for one in graph.over_pictures):
        ours = tokens_in(graph.filtering.encode)
        found, kept = _kept(ours, pictures)
        if inputs.machine.tokens == "cache" or found.is_done:
            tokens = {ours.name: found}
        theirs = _own_tokens(graph.rerank, inputs.machine)
        if theirs and theirs.made.fingerprint != ours.made.fingerprint:
            found, again = _kept(theirs, pictures)
            tokens = tokens if found.is_done else {theirs.name: found}
    return Inventory(
        {"ingest": Standing("done"), **tokens, **stages, **outputs},
        pictures,
        kept,
        again,
        runs=sum(run != graph.evaluated for run in finished(inputs.store)),
    )


def _own_tokens(rerank: Rerank | None, machine: Machine) -> Tokens | None:
    """Those of an encoder that may not be stage 1's, where they are to be kept."""
    if rerank is None or rerank.fused is not None or rerank.keeping(machine).tokens != "cache":
        return None
    return tokens_in(rerank)


def _kept(tokens: Tokens, pictures: int) -> tuple[Standing, Kept]:
    """How image tokens stand, and of how many pictures they are there."""
    found = standing_of(tokens)
    if found.is_done:
        return found, Kept(pictures)
    if found.state == "to do":
        found = replace(found, why="to be kept")
    left = dict.fromkeys(tokens.shards(), 1.0) if found.left is None else found.left
    to_keep = sum(share * tokens.size(one) for one, share in left.items())
    return found, Kept(pictures - round(to_keep), count_tokens(tokens, left))
