"""The formats by name, and how JSON is written for them."""

import json
from typing import Any, Literal

ExportFormat = Literal["cirr-submission", "circo-submission", "trec", "jsonl", "parquet", "latex"]
Stage = Literal["stage1", "stage2"]
"""Whose order is exported: stage 1's candidates, or the same re-ranked."""

_OF_SERVER: dict[str, ExportFormat] = {"cirr": "cirr-submission", "circo": "circo-submission"}


def format_of(dataset: str) -> ExportFormat:
    """The format of the dataset's test server, or ``jsonl`` where there is none."""
    return _OF_SERVER.get(dataset, "jsonl")


def compact_json(content: Any) -> str:
    """One line of ASCII without spaces: small, and no reader can guess another encoding or split
    it at a line separator of Unicode. Decoding gives ``content`` back, character by character."""
    return json.dumps(content, separators=(",", ":"))
