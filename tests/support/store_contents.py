"""What a store holds, to be compared with what another one does."""

from pathlib import Path
from typing import Any

from storage.artifacts import Artifact
from storage.catalog import CATALOG_FILE, query
from storage.listings import finished
from storage.store import Store


def tables(catalog: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Everything in it, sorted; without when and how fast it was made."""
    names = query(catalog, "SELECT table_name FROM duckdb_tables()")[1]
    shown = {name: "* EXCLUDE created_at" if name == "runs" else "*" for (name,) in names}
    assert shown.keys() >= {"runs", "rankings", "metrics", "costs"}
    del shown["costs"]
    return {
        name: query(catalog, f"SELECT {columns} FROM {name} ORDER BY ALL")[1]
        for name, columns in shown.items()
    }


def contents(store: Store) -> dict[str, Any]:
    """Of each artifact, which must be whole, the digest of its parts and all that they are of; of
    the catalog, the tables; and the names of all that lies among them."""
    artifacts = [
        artifact for stage in store.folders("artifacts") for artifact in finished(store, stage)
    ]
    assert all(artifact.is_done for artifact in artifacts)
    found: dict[str, Any] = {_named(one): one.content for one in artifacts}
    for one in artifacts:
        found[f"{_named(one)}/"] = store.names(_named(one))
    return {**found, "catalog": tables(store.local(CATALOG_FILE)), "beside": store.names("")}


def _named(artifact: Artifact) -> str:
    return f"artifacts/{artifact.stage}/{artifact.fingerprint}"
