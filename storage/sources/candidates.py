"""Anybody's candidates: a TREC run, JSON lines or Parquet as columns that know their places."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from cir_core.datasets.ids import text_fault
from cir_core.datasets.row_faults import RowFaults, shown
from cir_core.errors import AnnotationError
from cir_core.types import Row
from storage.sources.columns import Aliases, as_texts, read_bytes, read_parquet
from storage.sources.rows import read_rows

COLUMNS: Aliases = {
    "query": ("query", "query_id"),
    "image": ("image", "image_id"),
    "score": ("score",),
}
TREC = ("query", "Q0", "image", "rank", "score", "tag")
"""A line's columns, which white space parts."""

LINES_OF_NAMES = 1_000
"""JSON lines of a sound file whose other names are told. Tools write the same names in each line,
and to parse all lines for them would take longer than all that is read."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class CandidateRows:
    """The rows that can be read, in the file's order: whose candidate, which image, its score in
    fp64, and the number of its line, or row. The others are ``faults``.

    ``is_trec``: ids may be written as our own TREC files have them (``submissions.trec.escaped``).
    ``others`` are columns that are not read; of JSON lines, where all are sound, those that the
    first ``LINES_OF_NAMES`` name.
    """

    queries: pa.DictionaryArray
    images: pa.DictionaryArray
    scores: np.ndarray
    places: np.ndarray
    faults: RowFaults
    is_trec: bool = False
    others: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.scores)


def read_candidates(path: Path) -> CandidateRows:
    """A file of candidates: ``.jsonl``, ``.parquet``, and by any other name a TREC run, whose
    ranks are not read: as for trec_eval, scores decide.

    Rows of another form than the format's are faults. Raises PreflightError when the file cannot be
    read, and AnnotationError when nothing of it can be told by rows.
    """
    content = read_bytes(path, "a file of candidates")
    read = _READERS.get(path.suffix.lower(), _read_trec)
    rows = read(content, path)
    if not len(rows) and not rows.faults.count:
        rows.faults.add_of_file(1, ["there are no candidates in it"])
    return rows


# --- TREC


def _read_trec(content: pa.Buffer, path: Path) -> CandidateRows:
    faults = RowFaults("line")
    lines = pc.ascii_trim_whitespace(_lines(content, path, faults))
    places = 1 + np.flatnonzero(pc.not_equal(lines, "").to_numpy(zero_copy_only=False))
    words = pc.ascii_split_whitespace(lines.take(pa.array(places - 1)))
    counts = pc.list_value_length(words).to_numpy()
    ragged = counts != len(TREC)
    faults.add(
        places[ragged],
        lambda one: (
            f"has {counts[ragged][one]} columns, and a TREC run {len(TREC)}: {' '.join(TREC)}"
        ),
    )
    flat, places = pc.list_flatten(words.filter(pa.array(~ragged))), places[~ragged]
    queries, images, told = (
        flat.take(pa.array(np.arange(TREC.index(name), len(flat), len(TREC)))) for name in COLUMNS
    )
    scores, wrong = _numbers(told)
    no_numbers = told.filter(pa.array(wrong))
    faults.add(
        places[wrong], lambda one: f"score is not a number: {shown(no_numbers[one].as_py())}"
    )
    sound = pa.array(~wrong)
    ids = queries.filter(sound), images.filter(sound)
    return _rows(*ids, scores[~wrong], places[~wrong], faults, is_trec=True)


def _lines(content: pa.Buffer, path: Path, faults: RowFaults) -> pa.Array:
    """Of UTF-8; a line that is none is a fault, and read as blank."""
    raw = _without_mark(content, path)
    try:
        text = pa.Array.from_buffers(
            pa.large_binary(), 1, [None, pa.py_buffer(np.array([0, len(raw)], np.int64)), raw]
        ).cast(pa.large_string())
    except pa.ArrowInvalid:
        lines = raw.to_pybytes().split(b"\n")
        sound = [_is_utf8(line) for line in lines]
        broken = np.flatnonzero(np.logical_not(sound))
        faults.add(1 + broken, lambda one: f"is not UTF-8: {shown(lines[broken[one]])}")
        kept = [line.decode() if fine else "" for line, fine in zip(lines, sound, strict=True)]
        return pa.array(kept, pa.large_string())
    return pc.list_flatten(pc.split_pattern(text, "\n"))


def _is_utf8(line: bytes) -> bool:
    return not text_fault(line.decode(errors="surrogateescape"))


def _without_mark(content: pa.Buffer, path: Path) -> pa.Buffer:
    start = content.slice(0, min(3, content.size)).to_pybytes()
    if start.startswith(_UTF16):
        raise AnnotationError(
            "a file of candidates is UTF-16", item=str(path), remedy="save it as UTF-8"
        )
    return content.slice(3) if start == _BYTE_ORDER_MARK else content


def _numbers(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Each as fp64, and which are none."""
    try:
        values = texts.cast(pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        told = [_number(text) for text in texts.to_pylist()]
        wrong = np.array([one is None for one in told], dtype=bool)
        return np.array([0.0 if one is None else one for one in told]), wrong
    return values, np.zeros(len(values), dtype=bool)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


# --- tables


def _read_jsonl(content: pa.Buffer, path: Path) -> CandidateRows:
    raw = _without_mark(content, path)
    table = _sound_json(raw)
    if table is None:
        return _told_by_rows(raw.to_pybytes(), path)
    lines = raw.to_pybytes().split(b"\n")
    places = 1 + np.flatnonzero([bool(line.strip()) for line in lines])
    found = {name: _given(table, names) for name, names in COLUMNS.items()}
    if len(places) != table.num_rows or None in found.values():
        return _told_by_rows(raw.to_pybytes(), path)  # objects and lines are not the same
    sound = _checked(pa.table(found), places, RowFaults("line"), path)
    first = b"\n".join(lines[place - 1] for place in places[:LINES_OF_NAMES])
    names = read_rows(first.decode(errors="replace").encode(), path).columns
    return replace(sound, others=_others(names))


def _others(names: Sequence[str]) -> list[str]:
    return [name for name in names if not any(name in known for known in COLUMNS.values())]


def _sound_json(raw: pa.Buffer) -> pa.Table | None:
    """The columns that are read, by all of their names; None where some value is of another type,
    or some line no JSON."""
    kinds = {"query": pa.string(), "image": pa.string(), "score": pa.float64()}
    schema = pa.schema([(one, kinds[name]) for name, names in COLUMNS.items() for one in names])
    options = pj.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
    try:
        return pj.read_json(pa.BufferReader(raw), parse_options=options)
    except (pa.ArrowException, UnicodeDecodeError):
        return None


def _given(table: pa.Table, names: Sequence[str]) -> pa.ChunkedArray | None:
    """The only one of these columns that is there, every row having it."""
    there = [table[name] for name in names if table[name].null_count < table.num_rows]
    return there[0] if len(there) == 1 and not there[0].null_count else None


def _told_by_rows(raw: bytes, path: Path) -> CandidateRows:
    """Row by row, which tells each one's fault."""
    read, faults, sound = read_rows(raw, path), RowFaults("line"), []
    for row in read.entries:
        place, values = int(row.place.split()[-1]), _values(row)
        fault = row.fault or "; ".join(_faults(values))
        if fault:
            faults.add(np.array([place]), lambda _, fault=fault: fault)  # type: ignore[misc]  # a default has no type
        else:
            sound.append((place, *(given[0] for given in values.values())))
    places, queries, images, scores = ([one[at] for one in sound] for at in range(4))
    rows = _rows(
        pa.array(queries, pa.large_string()),
        pa.array(images, pa.large_string()),
        np.array(scores, dtype=float),
        np.array(places, dtype=np.int64),
        faults,
    )
    return replace(rows, others=_others(read.columns))


def _values(row: Row) -> dict[str, list[Any]]:
    """What is given under each column's names."""
    values = row.values
    return {
        name: [values[one] for one in names if values.get(one) is not None]
        for name, names in COLUMNS.items()
    }


def _faults(values: Mapping[str, list[Any]]) -> Iterator[str]:
    for name, given in values.items():
        if len(given) != 1:
            told = " and ".join(COLUMNS[name])
            yield f"{told} are both given" if given else f"{name} is missing"
        elif name == "score":
            if not _is_number(given[0]):
                yield f"score is not a number: {shown(given[0])}"
        elif not isinstance(given[0], str):
            yield f"{name} is not a text: {shown(given[0])}"
        elif text_fault(given[0]):
            yield f"{name} {text_fault(given[0])}: {shown(given[0])}"


def _is_number(value: object) -> bool:
    """Of those that fp64 can hold: JSON's integers have no end."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        float(value)
    except OverflowError:
        return False
    return True


def _read_parquet(content: pa.Buffer, path: Path) -> CandidateRows:
    table, others = read_parquet(content, path, COLUMNS)
    places = 1 + np.arange(table.num_rows)
    return replace(_checked(table, places, RowFaults("row"), path), others=others)


def _checked(table: pa.Table, places: np.ndarray, faults: RowFaults, path: Path) -> CandidateRows:
    """Rows that have a value in every column. Raises AnnotationError for columns of other types."""
    missing = {name: pc.is_null(table[name]).to_numpy() for name in COLUMNS}
    for name, of_column in missing.items():
        faults.add(places[of_column], lambda _, name=name: f"{name} is missing")  # type: ignore[misc]  # a default has no type
    there = ~np.logical_or.reduce([*missing.values()])
    table = table.filter(pa.array(there))
    queries, images = as_texts(table["query"]), as_texts(table["image"])
    kind = table.schema.field("score").type
    is_number = pa.types.is_floating(kind) or pa.types.is_integer(kind)
    wrong = [name for name, one in (("query", queries), ("image", images)) if one is None]
    wrong += ["score"] * (not is_number)
    if queries is None or images is None or not is_number:
        raise AnnotationError(
            "a file of candidates has columns of other types",
            item=str(path),
            cause="; ".join(f"{name} holds {table.schema.field(name).type}" for name in wrong),
            remedy="write query and image as UTF-8 text (007 is not 7), and score as a number",
        )
    scores = table["score"].cast(pa.float64(), safe=False).to_numpy()
    return CandidateRows(queries, images, scores, places[there], faults)


def _rows(
    queries: pa.Array,
    images: pa.Array,
    scores: np.ndarray,
    places: np.ndarray,
    faults: RowFaults,
    *,
    is_trec: bool = False,
) -> CandidateRows:
    ids = [pa.chunked_array([column], pa.large_string()) for column in (queries, images)]
    coded = [as_texts(column) for column in ids]
    assert coded[0] is not None, "they were decoded"
    assert coded[1] is not None, "they were decoded"
    return CandidateRows(coded[0], coded[1], scores, places, faults, is_trec)


_READERS: dict[str, Callable[[pa.Buffer, Path], CandidateRows]] = {
    ".jsonl": _read_jsonl,
    ".parquet": _read_parquet,
}
