"""What is wrong with the rows of a user's own tables: all of it, each with its place."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cir_core.datasets.ids import path_fault, text_fault
from cir_core.datasets.near_names import ImageNames
from cir_core.datasets.row_faults import FAULTS_SHOWN, shown
from cir_core.errors import AnnotationError
from cir_core.metrics.recall import AVERAGE, MICRO
from cir_core.types import Row, Rows

REQUIRED = ("reference", "text")
OPTIONAL = ("target", "targets", "category", "query_id", "group")

CATEGORIES_SHOWN = 10


def refuse(file: str, faults: Sequence[str]) -> None:
    """Raises AnnotationError listing the faults, if there are any."""
    if not faults:
        return
    told = list(faults[:FAULTS_SHOWN])
    if len(faults) > FAULTS_SHOWN:
        told.append(f"... and {len(faults) - FAULTS_SHOWN} more")
    raise AnnotationError(
        f"{file} cannot be used: {len(faults)} fault{'s' if len(faults) > 1 else ''}",
        item="\n".join(told),
        remedy="correct the file; docs/own-data.md tells its format",
    )


def query_faults(
    table: Rows, names: ImageNames, categories: Sequence[str], removes_reference: bool
) -> list[str]:
    """Everything that is wrong with a table of queries, one text each, in its order.

    ``categories`` are those of the gallery list: none without a list, "" for a list without
    categories. With ``removes_reference`` a query's target must be another image.
    """
    columns = [*REQUIRED, *(["category"] if any(categories) else [])]
    faults = _table_faults(table, columns, "queries")
    if faults:
        return faults
    seen: dict[str, str] = {}
    for row in table.entries:
        mine = [row.fault] if row.fault else list(_row_faults(row.values, table.columns, names))
        if not row.fault:
            mine += _target_faults(row.values, names, removes_reference)
            mine += _category_faults(row.values, categories)
            mine += _twice(row, seen)
        faults += [f"{row.place}: {fault}" for fault in mine]
    return faults or _naming_fault(table, "reference", names)


def gallery_faults(table: Rows, names: ImageNames) -> list[str]:
    """Everything that is wrong with a gallery list: columns ``image`` and perhaps ``category``."""
    faults = _table_faults(table, ["image"], "images")
    if faults:
        return faults
    for row in table.entries:
        mine = [row.fault] if row.fault else _image_faults(row.values, "image", names)
        if not row.fault and "category" in table.columns:
            mine += _text_faults(row.values, "category") or _category_faults(row.values, ())
        faults += [f"{row.place}: {fault}" for fault in mine]
    return faults or _naming_fault(table, "image", names)


def description_faults(
    table: Rows,
    names: ImageNames,
    count: Callable[[Sequence[str]], Sequence[int]],
    positions: int,
) -> list[str]:
    """Everything that is wrong with a table of descriptions: columns ``image``, ``text`` and
    perhaps ``group``. ``count`` tells texts' tokens, of which a model reads ``positions``."""
    faults = _table_faults(table, ["image", "text"], "descriptions")
    if faults:
        return faults
    mine = {row.place: _description_faults(row, names) for row in table.entries}
    sound = [row for row in table.entries if not mine[row.place]]
    lengths = count([row.values["text"] for row in sound])
    for row, length in zip(sound, lengths, strict=True):
        if length > positions:
            mine[row.place].append(f"text has {length} tokens, and the model reads {positions}")
    faults = [f"{place}: {fault}" for place, all_of in mine.items() for fault in all_of]
    return faults or _naming_fault(table, "image", names)


def _description_faults(row: Row, names: ImageNames) -> list[str]:
    if row.fault:
        return [row.fault]
    faults = _image_faults(row.values, "image", names)
    text = row.values.get("text")
    if isinstance(text, str) and not text.strip():
        faults.append("text is empty")
    else:
        faults += _text_faults(row.values, "text")
    if not _is_absent(row.values.get("group")):
        faults += _text_faults(row.values, "group")
    return faults


def targets_of(values: Mapping[str, Any]) -> Sequence[Any]:
    """The targets of a row: none, the one, or the list (in CSV written as JSON).

    Raises ValueError when ``targets`` is no list.
    """
    if not _is_absent(values.get("target")):
        return (values["target"],)
    several = values.get("targets")
    if _is_absent(several):
        return ()
    if isinstance(several, str):
        several = json.loads(several)
    if not isinstance(several, list):
        raise ValueError("no list")  # noqa: TRY004 - json.loads says ValueError, too
    return several


def _is_absent(value: Any) -> bool:
    """An empty cell and a null are no value; 0 and false are wrong ones."""
    return value is None or value == ""


def _table_faults(table: Rows, columns: Sequence[str], what: str) -> list[str]:
    """Faults that make every row's own superfluous; unreadable rows are told beside them."""
    broken = [f"{row.place}: {row.fault}" for row in table.entries if row.fault]
    found = ", ".join(map(shown, table.columns)) or "none"
    missing = [
        f"there is no column {name!r}; found: {found}"
        for name in columns
        if name not in table.columns
    ]
    if missing:
        return missing + broken
    return [] if table.entries else [f"there are no {what} in it"]


def _naming_fault(table: Rows, column: str, names: ImageNames) -> list[str]:
    """One lost image is a problem of that image; when no id is an image, ids are named wrongly."""
    named = [row.values[column] for row in table.entries]
    images = tuple(names.images)
    if not images or any(names.meant(name) in names.images for name in named):
        return []
    like = next((image for image in images if _stem(image) == _stem(named[0])), images[0])
    return [
        f"none of the {column}s is an image; the first is {shown(named[0])}, while an image is "
        f"called by its path, such as {shown(like)}"
    ]


def _stem(path: str) -> str:
    name = path.rpartition("/")[2]
    return name.rpartition(".")[0] or name


def _row_faults(
    values: Mapping[str, Any], columns: Sequence[str], names: ImageNames
) -> Iterator[str]:
    if values.get("reference") == "" and values.get("text") == "":
        yield "reference and text are empty"
        return
    yield from _image_faults(values, "reference", names)
    yield from _text_faults(values, "text", may_be_empty=True)
    for name in ("category", "query_id"):
        if name in columns:
            yield from _text_faults(values, name)
    if not _is_absent(values.get("group")):
        yield from _text_faults(values, "group")


def _text_faults(values: Mapping[str, Any], name: str, *, may_be_empty: bool = False) -> list[str]:
    value = values.get(name)
    if value is None or (value == "" and not may_be_empty):
        return [f"{name} is missing"]
    if not isinstance(value, str):
        return [f"{name} is not a text: {shown(value)}"]
    fault = text_fault(value)
    return [f"{name} {fault}: {shown(value)}"] if fault else []


def _image_faults(values: Mapping[str, Any], name: str, names: ImageNames) -> list[str]:
    faults = _text_faults(values, name)
    fault = "" if faults else path_fault(values[name]) or names.fault(values[name])
    return [f"{name} {fault}: {shown(values[name])}"] if fault else faults


def _target_faults(
    values: Mapping[str, Any], names: ImageNames, removes_reference: bool
) -> Iterator[str]:
    if not (_is_absent(values.get("target")) or _is_absent(values.get("targets"))):
        yield "target and targets are both given"
        return
    try:
        targets = targets_of(values)
    except (ValueError, RecursionError):
        yield f"targets is not a list of texts: {shown(values['targets'])}"
        return
    for target in targets:
        yield from _image_faults({"target": target}, "target", names)
    if removes_reference and _meant(values.get("reference"), names) in (
        _meant(target, names) for target in targets
    ):
        yield "the target is the reference, which may not answer under this protocol"


def _meant(value: Any, names: ImageNames) -> Any:
    return names.meant(value) if isinstance(value, str) else value


def _category_faults(values: Mapping[str, Any], categories: Sequence[str]) -> list[str]:
    category = values.get("category")
    if category in (AVERAGE, MICRO):
        return [f"category {category!r} is the name of a mean over categories"]
    if any(categories) and isinstance(category, str) and category not in categories:
        told = ", ".join(map(shown, categories[:CATEGORIES_SHOWN]))
        return [f"category {shown(category)} is not in the gallery list, which has {told}"]
    return []


def _twice(row: Row, seen: dict[str, str]) -> list[str]:
    """Ids are names: the first place that has one keeps it."""
    name = row.values.get("query_id")
    if not isinstance(name, str):
        return []
    first = seen.setdefault(name, row.place)
    return [] if first == row.place else [f"query_id {shown(name)} is already that of {first}"]
