"""``metrics.json``: all of a run's numbers with what they are of, for programs. Its schema is
``metrics.schema.json``, which stands beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

from cir_core.metrics.recall import AVERAGE
from cir_core.protocols import PROTOCOLS
from cir_core.published import published_rows
from storage.answers import OpenCatalog
from storage.view import View
from storage.views import Evaluated
from tasks.results.record.caveats import caveats_of
from tasks.results.record.facts import facts_of
from tasks.results.wording import of_run
from tasks.stages.costs import lineage

SCHEMA_FILE = "metrics.schema.json"

SCHEMA_VERSION = 1
"""Raised when a field gets another name, place or meaning; not when one is added."""

TABLES = {
    "galleries": "category",
    "metrics": "category, stage, pool, metric, k",
    "costs": "stage",
    "problems": "item, kind",
    "gain_per_petaflop": "category, pool, metric, k",
}
"""Of the catalog, by what their rows are ordered."""


def schema_text() -> str:
    """JSON Schema, draft 2020-12."""
    return (resources.files(__package__) / SCHEMA_FILE).read_text(encoding="utf-8")


def document(
    catalog: OpenCatalog, evaluated: Evaluated, command: Sequence[str], *, report: int
) -> dict[str, Any]:
    """The file's content, from the catalog and the manifests; ``command`` is what makes the run
    again, ``report`` the version of the page. Raises as ``facts_of``."""
    run = catalog.run(evaluated.run_id)
    where = f"WHERE {of_run(run)} ORDER BY"
    tables = {
        name: catalog.rows(f"SELECT * EXCLUDE (run_id) FROM {name} {where} {order}")
        for name, order in TABLES.items()
    }
    artifacts = lineage(evaluated)
    places = {view.stage: place for place, view in enumerate(artifacts)}
    tables["costs"].sort(key=lambda row: places.get(row["stage"], 0))
    protocol, split = PROTOCOLS[run["protocol"]], run["split"]
    label = evaluated.label
    return {
        "$schema": SCHEMA_FILE,
        "schema_version": SCHEMA_VERSION,
        "report_version": report,
        "run": run,
        "label": {"name": label.name, "tags": list(label.tags)},
        "command": list(command),
        "protocol": asdict(protocol),
        "facts": asdict(facts_of(evaluated)),
        "artifacts": [_artifact(view) for view in artifacts],
        "caveats": caveats_of(run, tables),
        **tables,
        "published": [row for row in published_rows(protocol.name) if row["split"] == split],
    }


def _artifact(view: View) -> dict[str, Any]:
    identity = view.identity()
    return {
        "stage": view.stage,
        "fingerprint": view.fingerprint,
        "content": view.content,
        "version": identity["version"],
        "settings": identity["settings"],
        "inputs": identity["inputs"],
        "made_with": view.made_with(),
        "created_at": view.created_at(),
    }


def averaged(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of rows of ``metrics``, those over all queries: macro averages, or the only category's."""
    return [row for row in rows if row["category"] == AVERAGE] or list(rows)
