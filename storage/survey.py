"""What lies in a store, seen in one look that changes nothing: artifacts, what is begun of others,
and what is none of it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from storage import manifests
from storage.atomic import leftover_in
from storage.formats import STORE_FORMAT
from storage.identities import FINGERPRINT_DIGITS
from storage.parts import ASIDE, MANIFEST, OURS, RECEIPT, part_name
from storage.store import Store

State = Literal["whole", "begun", "other version", "damaged", "rest"]
"""Of an artifact: whole; without a manifest, and with parts that have receipts; whole and not to be
read by this version; with a manifest that cannot be believed; parts that nothing vouches for."""

Key = tuple[str, str]
"""Of an artifact: stage and fingerprint."""

_ARTIFACT = re.compile(
    rf"artifacts/(?P<stage>[^/]+)/(?P<fingerprint>[0-9a-f]{{{FINGERPRINT_DIGITS}}})/(?P<file>[^/]+)"
)


@dataclass(frozen=True)
class Surveyed:
    """One artifact: the files in its folder with their bytes, by last parts, and what its manifest
    or its receipts say. ``stored`` are the files of its ``parts``. ``fault``: why a manifest is not
    believed."""

    stage: str
    fingerprint: str
    files: Mapping[str, int]
    stored: Mapping[str, str]
    manifest: Mapping[str, Any] | None
    receipts: Mapping[str, Mapping[str, Any] | None]
    fault: str = ""

    @property
    def key(self) -> Key:
        return self.stage, self.fingerprint

    @property
    def folder(self) -> str:
        return f"artifacts/{self.stage}/{self.fingerprint}"

    @property
    def state(self) -> State:
        if self.fault:
            return "damaged"
        if self.manifest is None:
            return "begun" if self.receipts else "rest"
        is_ours = self.manifest["identity"].get("store_format") == STORE_FORMAT
        return "whole" if is_ours and manifests.is_complete(self.manifest) else "other version"

    @property
    def inputs(self) -> Mapping[str, str]:
        """By role; none are known of what is not whole."""
        inputs = {} if self.manifest is None else self.manifest["identity"].get("inputs")
        return inputs if isinstance(inputs, dict) else {}

    @property
    def parts(self) -> Mapping[str, Mapping[str, Any]]:
        """What is promised of each."""
        return _parts_of(self.manifest, self.receipts)

    @property
    def ours(self) -> list[str]:
        """Files that artifacts have, the manifest first."""
        mine = [file for file in self.files if file.endswith(OURS) or leftover_in(file)]
        return [MANIFEST] * (MANIFEST in self.files) + mine

    @property
    def strays(self) -> list[str]:
        """Of these, what neither manifest nor receipt names: never read, and in the end removed. Of
        a manifest that cannot be believed nobody knows."""
        named = {*self.stored.values(), *(f"{part}{RECEIPT}" for part in self.receipts)}
        kept = {MANIFEST, *named}
        mine = [file for file in self.ours if not file.endswith(ASIDE) and not leftover_in(file)]
        return [] if self.fault else [file for file in mine if file not in kept]

    @property
    def bytes(self) -> int:
        return sum(self.files.values())

    @property
    def rows(self) -> int:
        """Of all parts."""
        return sum(one.get("rows", 0) for one in self.parts.values())


@dataclass(frozen=True)
class Survey:
    """``files`` are all that there is, with their bytes, by name."""

    files: Mapping[str, int]
    artifacts: Mapping[Key, Surveyed]

    @property
    def leftovers(self) -> list[str]:
        """Of writers that were killed, or that are at work."""
        return [name for name in self.files if leftover_in(name)]

    @property
    def aside(self) -> list[str]:
        """What was found damaged, for somebody to look at."""
        return [name for name in self.files if name.endswith(ASIDE) and self.artifact_of(name)]

    def artifact_of(self, name: str) -> Key | None:
        """Of a file that lies in an artifact's folder."""
        found = _ARTIFACT.fullmatch(name)
        return None if found is None else (found["stage"], found["fingerprint"])

    def below(self, folder: str) -> dict[str, int]:
        """Files in a folder, and in its folders."""
        return {name: size for name, size in self.files.items() if name.startswith(f"{folder}/")}

    def inputs_of(self, one: Surveyed) -> Iterator[Surveyed]:
        """The artifacts that it is made of and that are there. Of one that is only begun these are
        known by the content that its receipts name."""
        for role, name in one.inputs.items():
            if (role, name) in self.artifacts:
                yield self.artifacts[role, name]
        if one.manifest is None:
            contents = {item for part in one.parts.values() for item in part["sources"].items()}
            yield from (self._by_content[item] for item in contents if item in self._by_content)

    @cached_property
    def _by_content(self) -> dict[tuple[str, str], Surveyed]:
        whole = [one for one in self.artifacts.values() if one.state == "whole"]
        return {(one.stage, content_of(one)): one for one in whole}


def content_of(one: Surveyed) -> str:
    """Of a whole artifact: as ``Artifact.content``."""
    assert one.manifest is not None
    return manifests.content(one.manifest)


def survey(store: Store) -> Survey:
    """One look at all names, and at each manifest and receipt. Raises as ``Store.files``."""
    files = store.files()
    folders: dict[Key, dict[str, int]] = {}
    for name, size in files.items():
        found = _ARTIFACT.fullmatch(name)
        if found:
            folders.setdefault((found["stage"], found["fingerprint"]), {})[found["file"]] = size
    artifacts = {key: _surveyed(store, key, mine) for key, mine in folders.items()}
    return Survey(files, artifacts)


def _surveyed(store: Store, key: Key, files: Mapping[str, int]) -> Surveyed:
    stage, fingerprint = key
    folder = f"artifacts/{stage}/{fingerprint}"
    manifest, fault = None, ""
    if MANIFEST in files:
        try:
            text = store.read_text(f"{folder}/{MANIFEST}")
            manifest = manifests.parse_any(text, fingerprint)
        except (OSError, ValueError) as error:
            fault = str(error)
    receipts = {
        file.removesuffix(RECEIPT): _receipt(store, f"{folder}/{file}")
        for file in files
        if file.endswith(RECEIPT) and MANIFEST not in files
    }
    stored = {
        part: store.part_name(part_name(folder, part), one["sha256"]).rpartition("/")[2]
        for part, one in _parts_of(manifest, receipts).items()
    }
    return Surveyed(stage, fingerprint, files, stored, manifest, receipts, fault)


def _parts_of(
    manifest: Mapping[str, Any] | None, receipts: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, Mapping[str, Any]]:
    """By the manifest, or by receipts that can be believed."""
    every = receipts if manifest is None else manifest["parts"]
    return {
        part: one
        for part, one in every.items()
        if isinstance(one, Mapping) and one.keys() >= manifests.PART
    }


def _receipt(store: Store, name: str) -> dict[str, Any] | None:
    try:
        return manifests.parse_receipt(store.read_text(name))
    except (OSError, ValueError):
        return None
