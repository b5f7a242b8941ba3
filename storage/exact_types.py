"""The types that columns are cast to, so that Python, or Parquet, holds their values exactly."""

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING

from storage.quoting import quoted

if TYPE_CHECKING:
    from duckdb.sqltypes import DuckDBPyType

NUMBERS = {
    *("boolean", "float", "double", "decimal"),
    *("tinyint", "smallint", "integer", "bigint", "hugeint"),
    *("utinyint", "usmallint", "uinteger", "ubigint", "uhugeint"),
}
NESTED = {"list", "array", "struct", "tuple", "map", "union"}

IN_PYTHON = NUMBERS | NESTED
"""By the names that DuckDB gives them."""

IN_PARQUET = (IN_PYTHON - {"uhugeint", "union"}) | {
    *("date", "time", "time_ns", "blob"),
    *("timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", "timestamp with time zone"),
}
"""What Arrow writes, and any reader of Parquet finds again."""


def told_as(kind: "DuckDBPyType", kept: Set[str] = IN_PYTHON) -> str:
    """The type that a column is cast to.

    What is ``kept`` is left as it is; all else is DuckDB's own text: 2020-01-31, infinity, 1 month
    3 days, \\xAB\\x00 of a blob. Lists, arrays, structs, tuples, maps and unions stay what they
    are, of such values, but that keys of maps are texts always (Python cannot have a list for a
    key). A union is its member's value; which member that is, ``union_tag`` tells.
    """
    if kind.id not in kept:
        return "VARCHAR"
    return _nested(kind.id, kind.children, kept) if kind.id in NESTED else str(kind)


def _nested(
    kind: str, children: "Sequence[tuple[str, DuckDBPyType | int | list[str]]]", kept: Set[str]
) -> str:
    told = [
        (name, told_as(part, kept)) for name, part in children if not isinstance(part, int | list)
    ]
    parts = dict(told)
    if kind == "list":
        return f"{parts['child']}[]"
    if kind == "array":
        return f"{parts['child']}[{dict(children)['size']}]"
    if kind == "map":
        return f"MAP(VARCHAR, {parts['value']})"
    if kind == "tuple":  # its parts have no names
        return f"TUPLE({', '.join(part for _, part in told)})"
    members = (f"{quoted(name)} {part}" for name, part in told if name)  # "": the tag
    return f"{kind.upper()}({', '.join(members)})"
