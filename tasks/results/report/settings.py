"""Section ``settings``: what each artifact of the run was made from, exactly."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage.view import View
from tasks.results.report.source import Source
from tasks.stages.costs import lineage


@dataclass(frozen=True)
class Made:
    """One artifact: its settings and inputs as its manifest has them, values as JSON."""

    stage: str
    fingerprint: str
    settings: Mapping[str, str]
    inputs: Mapping[str, str]
    created_at: str


def settings(source: Source) -> Sequence[Made]:
    """In the order of the stages."""
    return [_made(view) for view in lineage(source.evaluated)]


def _made(view: View) -> Made:
    identity: Mapping[str, Any] = view.identity()
    told = {
        name: json.dumps(value, ensure_ascii=False) for name, value in identity["settings"].items()
    }
    return Made(view.stage, view.fingerprint, told, identity["inputs"], view.created_at())
