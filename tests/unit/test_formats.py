"""A store tells its format: an older one is written beside, a newer one is not touched."""

import json
import os
from pathlib import Path

import pytest

from cir_core.errors import StoreCorrupt
from flows.leasing import leased
from storage import manifests
from storage.artifacts import Artifact
from storage.formats import FORMAT_FILE, STORE_FORMAT, marker
from storage.identities import Identity
from storage.store import LocalStore, open_store

IDENTITY = Identity("rank", 1, {"k": 5}, {})


def of_format(store: Path, told: int) -> Path:
    """The folder of an artifact of another format, without parts."""
    text = manifests.render(IDENTITY.as_json() | {"store_format": told}, {}, {})
    folder = store / "artifacts/rank" / manifests.digest(json.loads(text)["identity"])[:32]
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(text)
    return folder


def marked(store: Path, told: int) -> None:
    content = {"store_format": told, "made_by": "cir-pipeline 9.1"}
    (store / FORMAT_FILE).write_text(manifests.seal(content))


def test_a_store_is_marked_when_it_is_first_held(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    assert not (tmp_path / "store").exists(), "to open is to write nothing"
    with leased(store):
        pass
    told = json.loads(store.read_text(FORMAT_FILE))
    assert told["store_format"] == STORE_FORMAT
    assert told["made_by"].startswith("cir-pipeline ")
    before = os.stat(store.local(FORMAT_FILE))
    with leased(open_store(tmp_path / "store")):
        assert os.stat(store.local(FORMAT_FILE)) == before


def test_a_store_without_a_marker_is_what_its_manifests_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = LocalStore(tmp_path)
    Artifact.of(store, IDENTITY).finish(IDENTITY, [])
    with leased(store):
        assert store.read_text(FORMAT_FILE) == marker()
    assert caplog.text == ""


@pytest.mark.parametrize("is_marked", [True, False])
def test_what_is_of_an_older_format_stays_beside_what_is_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, is_marked: bool
) -> None:
    older = of_format(tmp_path, STORE_FORMAT - 1)
    before = (older / "manifest.json").read_bytes()
    if is_marked:
        marked(tmp_path, STORE_FORMAT - 1)
    for _ in range(2):
        with leased(open_store(tmp_path)):
            pass
    assert (older / "manifest.json").read_bytes() == before
    assert caplog.text.count("make them again") == 1
    assert LocalStore(tmp_path).read_text(FORMAT_FILE) == marker()


def test_a_newer_store_is_refused_by_whoever_opens_it(tmp_path: Path) -> None:
    marked(tmp_path, STORE_FORMAT + 1)
    before = os.listdir(tmp_path)
    with pytest.raises(StoreCorrupt, match="newer format") as caught:
        open_store(tmp_path)
    assert caught.value.exit_code == 6
    assert f"format is {STORE_FORMAT + 1}" in caught.value.cause
    assert "cir-pipeline 9.1" in caught.value.cause
    assert f"up to {STORE_FORMAT}" in caught.value.cause
    assert "install" in caught.value.remedy
    assert os.listdir(tmp_path) == before


def test_newer_artifacts_without_a_marker_are_not_written_beside(tmp_path: Path) -> None:
    of_format(tmp_path, STORE_FORMAT + 1)
    with pytest.raises(StoreCorrupt, match="newer format"), leased(open_store(tmp_path)):
        pass
    assert not (tmp_path / FORMAT_FILE).exists()


@pytest.mark.parametrize("place", range(0, 8 * len(marker()), 13))
def test_a_flipped_bit_of_the_marker_is_damage_and_no_other_format(
    tmp_path: Path, place: int
) -> None:
    content = bytearray(marker().encode())
    content[place // 8] ^= 1 << place % 8
    (tmp_path / FORMAT_FILE).write_bytes(content)
    with pytest.raises(StoreCorrupt, match="cannot be told") as caught:
        open_store(tmp_path)
    assert "delete it" in caught.value.remedy
