"""A store's name is a name: no library reads a URI, a home folder or a pattern into it."""

from pathlib import Path

import pyarrow as pa
import pytest

from storage.artifacts import Artifact
from storage.catalog import CATALOG_FILE, query, write_catalog
from storage.identities import Identity
from storage.store import LocalStore

IDENTITY = Identity("encode", 1, {}, {})
NAMES = ["run:3", "~", "~/results", "file:s", "a b", "it's", "50%25?x=1#y", "[a]*", "s3:x", "été"]


@pytest.mark.parametrize("name", NAMES)
def test_a_relative_store_of_any_name_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    store, table = Path(name), pa.table({"x": [1, 2]})
    artifact = Artifact.of(LocalStore(store), IDENTITY)
    artifact.write_part("rows", table)
    artifact.finish(IDENTITY, ["rows"])
    assert Artifact.of(LocalStore(store), IDENTITY).is_done
    assert Artifact.of(LocalStore(store), IDENTITY).read("rows") == table
    write_catalog(store / CATALOG_FILE, [])
    assert query(store / CATALOG_FILE, "SELECT count(*) FROM runs")[1] == [(0,)]
    assert (tmp_path / name / CATALOG_FILE).is_file()
