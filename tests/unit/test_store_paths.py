"""A store's name is a name: no library reads a URI, a home folder or a pattern into it."""

import pickle
from pathlib import Path

import pyarrow as pa
import pytest

from flows.settings import Settings
from storage.addresses import as_typed
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


@pytest.mark.parametrize("typed", ["s3://b/p", "s3://b", "gs://b/p/q"])
def test_what_was_typed_as_a_uri_is_told_as_one(typed: str) -> None:
    """A ``Path`` makes one slash of two."""
    settings = Settings.model_validate({"store": typed, "data_root": typed})
    for place in (settings.store, settings.data_root, as_typed(settings.store)):
        assert str(place) == typed
        assert str(pickle.loads(pickle.dumps(place))) == typed
    again = Settings.model_validate(settings.model_dump(mode="json"))
    assert (again, str(again.store)) == (settings, typed)
    assert str(settings.store / "x") == f"{typed}/x"
    assert "://" not in str(Settings.model_validate({"store": "/s3:/b"}).store)
