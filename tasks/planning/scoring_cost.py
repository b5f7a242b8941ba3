"""What stage 2 costs a pair, measured in a process of its own: a peak of memory is a process's."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from multiprocessing.connection import Connection
from pathlib import Path

import pyarrow.compute as pc
import torch
from torch import nn

from cir_core.errors import CirError, WorkerLost
from cir_core.memory import peak_memory
from cir_core.types import Precisions
from storage.models.weights import read_shapes
from storage.views import Evaluated
from tasks.child import Child
from tasks.feed.image_tokens import Pictures
from tasks.machine import Machine
from tasks.models.opening import open_encoder, read_reranker_config, read_retriever_config
from tasks.planning.calibrate import calibrate_scoring
from tasks.planning.timing import Sample
from tasks.planning.workload import count_workload, reading_of_pairs

SERVE = "tasks.planning.scoring_cost:serve"


@dataclass(frozen=True)
class Scoring:
    """A finished run whose stage 2 is to be measured, and on what."""

    evaluated: Evaluated
    root: Path
    stage1: Path
    stage2: Path
    precision: Precisions
    machine: Machine


@dataclass(frozen=True)
class ScoringCost:
    """Of stage 2 over the run's own ``pairs`` (distinct ones), images seen and queries fused.

    ``flops_per_pair`` is counted over all of them, the beginning of queries included;
    ``pairs_per_second`` follows from a timed sample of this machine with ``threads``;
    ``peak_memory`` in bytes is that of the process that timed it (a GPU's, where that scores).
    ``parameters`` are all of the model, and ``own_parameters`` those that are not its image
    encoder's.
    """

    pairs: int
    flops_per_pair: float
    pairs_per_second: float
    peak_memory: int
    parameters: int
    own_parameters: int
    threads: int


def measure(one: Scoring) -> ScoringCost:
    """In this process."""
    config, ingested = read_reranker_config(one.stage2), one.evaluated.ingested
    chosen = one.evaluated.candidates
    candidates = chosen.read("candidates")
    k = pc.max(candidates["stage1_rank"]).as_py() or 0
    work = count_workload(
        ingested,
        reading_of_pairs(read_retriever_config(one.stage1), config),
        k=k,
        encoded=chosen.encoded,
        candidates=candidates,
    )
    pairs = work.expected.pairs
    flops = config.beginning_flops(work.lengths) + config.scoring_flops(work.expected.load)
    sample = Sample.of(work, k=k, index="exact")
    pictures = Pictures(ingested, one.root, one.machine)
    speed = calibrate_scoring(pictures, one.stage2, sample, precision=one.precision)
    peak = peak_memory(torch.device(one.machine.device))
    own, parameters = count_parameters(one.stage2)
    return ScoringCost(
        pairs=round(pairs),
        flops_per_pair=flops / max(1.0, pairs),
        pairs_per_second=pairs / (flops * speed) if flops * speed else 0.0,
        peak_memory=peak,
        parameters=parameters,
        own_parameters=own,
        threads=torch.get_num_threads(),
    )


def count_parameters(folder: Path) -> tuple[int, int]:
    """Of a model without its image encoder, which is a module or holds some, and in all. Raises
    CheckpointRefused."""
    total = sum(prod(shape) for shape in read_shapes(folder).values())
    encoder = open_encoder(folder)
    holds = [encoder] if isinstance(encoder, nn.Module) else vars(encoder).values()
    modules = [one for one in holds if isinstance(one, nn.Module)]
    seeing = sum(one.numel() for module in modules for one in module.state_dict().values())
    return total - seeing, total


def measure_each(many: Sequence[Scoring]) -> list[ScoringCost]:
    """One after the other on this machine, each in a fresh process, so that they compare. Raises
    as ``measure``, and WorkerLost when a process dies."""
    return [_in_a_child(one) for one in many]


def _in_a_child(one: Scoring) -> ScoringCost:
    child = Child(SERVE)
    try:
        child.channel.send(one)
        found = child.channel.recv()
    except (EOFError, OSError) as error:
        raise WorkerLost(
            "the process that measures scoring has died",
            item=str(one.stage2),
            cause=child.fate(),
            remedy="run the same command again: all that is finished is kept",
        ) from error
    finally:
        child.end()
    if isinstance(found, CirError):
        raise found
    cost: ScoringCost = found
    return cost


def serve(channel: int) -> None:
    """Measure one ``Scoring`` and say its ScoringCost, or the CirError that stopped it."""
    with Connection(channel) as parent:
        one = parent.recv()
        try:
            parent.send(measure(one))
        except CirError as error:
            parent.send(error)
        except BrokenPipeError:  # nobody waits for it any more
            os._exit(1)
