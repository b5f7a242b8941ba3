"""Models from their folders on disk, and texts as their tokens."""

from pathlib import Path

from cir_core.errors import PreflightError
from cir_core.models.config import TextConfig
from cir_core.models.fusion import Stage1Model
from cir_core.models.load import load_stage1, load_stage2, parse_config
from cir_core.models.reranker import Stage2Model
from cir_core.models.tokenizer import Tokenizer
from storage.checkpoints import read_config, read_tensors


def open_stage1(folder: Path) -> Stage1Model:
    """Stage 1 in eval mode. Raises CheckpointRefused (wrong stage, wrong shapes, unreadable)."""
    config = parse_config(read_config(folder), str(folder))
    return load_stage1(config, read_tensors(folder), str(folder))


def open_stage2(folder: Path) -> Stage2Model:
    """Stage 2 in eval mode. Raises as ``open_stage1``."""
    config = parse_config(read_config(folder), str(folder))
    return load_stage2(config, read_tensors(folder), str(folder))


def tokenize(config: TextConfig, query_ids: list[str], texts: list[str]) -> list[list[int]]:
    """Token ids of each text, never truncated.

    Raises PreflightError naming the texts that are longer than the model's positions.
    """
    token_ids = Tokenizer(config.vocabulary)(texts)
    too_long = [
        f"{query} ({len(ids)} tokens)"
        for query, ids in zip(query_ids, token_ids, strict=True)
        if len(ids) > config.positions
    ]
    if too_long:
        raise PreflightError(
            f"{len(too_long)} modification texts are longer than the model can read",
            item=", ".join(too_long[:5]),
            cause=f"the model has {config.positions} positions, and texts are never truncated",
            remedy="shorten these texts in the annotation file",
        )
    return token_ids
