"""A folder of one's own as a dataset: what its description says, and what its files' names say."""

import os
import tomllib
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError

from cir_core.datasets.ids import path_fault, text_fault
from cir_core.datasets.own import Layout, OwnData
from cir_core.datasets.registry import Dataset, find_dataset
from cir_core.errors import PreflightError, UsageError
from flows.settings import Settings, in_home
from storage.sources.roots import open_root, require_root
from storage.sources.rows import TABLES

DESCRIPTION = "cir-dataset.toml"
OWN_ONLY = ("name", "images", "queries", "gallery")
TABLE_SETTINGS = ("queries", "gallery")


class _Description(BaseModel):
    """What the file may say; each is the setting of the same name where that is not given."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str | None = None
    images: str | None = None
    queries: str | None = None
    gallery: str | None = None
    protocol: str | None = None
    k: PositiveInt | Literal["all"] | None = None
    stage1: str | None = None
    stage2: str | None = None


def complete(settings: Settings) -> Settings:
    """Own data's settings with what the folder's description adds; any others as they are.

    Paths in a description are relative to the folder. Tables that are set elsewhere, as by flags,
    may also lie anywhere else, named from the working folder: the folder may be on a disk that
    nobody can write to. Raises PreflightError when the folder or a file of it is missing,
    UsageError for a wrong description, or for own data's settings beside another dataset's name.
    """
    if settings.dataset != "own":
        stray = [f"--{name}" for name in OWN_ONLY if getattr(settings, name) is not None]
        if stray:
            raise UsageError(
                f"dataset {settings.dataset} has no {', '.join(stray)}",
                remedy="these are for own data: --dataset ./folder",
            )
        return settings
    if settings.data_root is None:
        return settings
    require_root(settings.data_root)
    described: dict[str, Any] = _read_description(settings.data_root).model_dump(exclude_none=True)
    for name in {"images", *TABLE_SETTINGS} & described.keys():
        described[name] = _plain(described[name])
    for stage in {"stage1", "stage2"} & described.keys():
        described[stage] = settings.data_root / in_home(Path(described[stage]))
    missing = {name: value for name, value in described.items() if getattr(settings, name) is None}
    given = {name: getattr(settings, name) for name in TABLE_SETTINGS}
    placed = {name: _place(settings.data_root, path) for name, path in given.items() if path}
    return settings.model_copy(update=missing | placed)


def open_dataset(settings: Settings) -> Dataset:
    """The dataset that completed settings name; own data with its files found.

    Raises UsageError for an unknown name or an impossible path, and PreflightError for files that
    are not there, each listing everything at once.
    """
    dataset = find_dataset(settings.dataset)
    if settings.dataset != "own" or settings.data_root is None:
        return dataset
    root = settings.data_root
    layout = Layout(
        images=_plain(settings.images or "."),
        queries=settings.queries or _only_queries(root),
        gallery=settings.gallery,
        descriptions=_only_table(root, "descriptions"),
        catalogue=_only_table(root, "catalogue"),
    )
    _require_files(root, layout)
    name = settings.name or dataset.name
    if text_fault(name):
        raise UsageError(f"the dataset's name {text_fault(name)}", item=ascii(name))
    return replace(dataset, name=name, adapter=OwnData(layout))


def _read_description(root: Path) -> _Description:
    place = open_root(root)
    try:
        return _Description(**tomllib.loads(place.read(DESCRIPTION).decode("utf-8-sig")))
    except FileNotFoundError:
        return _Description()
    except ValidationError as error:
        faults = [f"{fault['loc'][0]}: {fault['msg']}" for fault in error.errors()]
        cause = "; ".join(faults)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        cause = str(error)
    raise UsageError(
        "the description of a dataset is not usable",
        item=place.told(DESCRIPTION),
        cause=cause,
        remedy=f"it may hold {', '.join(_Description.model_fields)}; see docs/own-data.md",
    )


def _only_queries(root: Path) -> str:
    """The file of queries, where its name need not be told."""
    found = _only_table(root, "queries")
    if found is not None:
        return found
    raise PreflightError(
        "there is no file of queries",
        item=str(root),
        cause=f"looked for {', '.join(_names('queries'))}",
        remedy=f"name it with --queries, or as queries = ... in {DESCRIPTION}",
    )


def _only_table(root: Path, name: str) -> str | None:
    """The table of this name in one of its formats, or None. Raises PreflightError for several."""
    place = open_root(root)
    found = [file for file in _names(name) if place.is_file(file)]
    if len(found) > 1:
        raise PreflightError(
            f"there are several files of {name}",
            item=str(root),
            cause=f"found {', '.join(found)}",
            remedy="rename all but one"
            + (f", or name it with --{name}, or in {DESCRIPTION}" if name == "queries" else ""),
        )
    return found[0] if found else None


def _names(table: str) -> list[str]:
    return [f"{table}{suffix}" for suffix in TABLES]


def _plain(path: str) -> str:
    """A path below the folder, without a leading ./ or a trailing slash."""
    plain = str(PurePosixPath(path))
    fault = "" if plain == "." else path_fault(plain)
    if fault:
        raise UsageError(
            f"a path {fault}",
            item=path,
            cause="images lie below the dataset's folder, and whatever else its description names",
            remedy="put the files there, or name tables that lie elsewhere with --queries and "
            "--gallery",
        )
    return plain


def _place(root: Path, path: str) -> str:
    """A table's path relative to the folder, where it is there, which counts first; absolute, where
    it is elsewhere. One that is nowhere is told by ``_require_files``, by the place it was last
    looked for."""
    plain = str(PurePosixPath(path))
    if not path_fault(plain) and open_root(root).is_file(plain):
        return plain
    elsewhere, below = os.path.abspath(in_home(Path(path))), os.path.abspath(root)
    if not path_fault(plain) and not Path(elsewhere).is_file():
        return plain
    is_below = Path(elsewhere).is_relative_to(below)
    return Path(elsewhere).relative_to(below).as_posix() if is_below else elsewhere


def _require_files(root: Path, layout: Layout) -> None:
    place = open_root(root)
    faults = [] if place.is_folder(layout.images) else [f"{layout.images} is not a folder"]
    for file in filter(None, (layout.queries, layout.gallery)):
        if Path(file).suffix.lower() not in TABLES:
            faults.append(f"{file} does not end in {', '.join(TABLES)}")
        elif not place.is_file(file):
            faults.append(f"{file} is not a file")
    if faults:
        raise PreflightError(
            "own data are not complete",
            item=str(root),
            cause="; ".join(faults),
            remedy="docs/own-data.md tells what is expected",
        )
