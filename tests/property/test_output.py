"""Any text, heading and float through every table, JSON, CSV and Markdown: whole, exact, inert."""

import csv
import io
import json
import logging
import math
import struct

from hypothesis import example, given, settings
from hypothesis import strategies as st

from flows.views.streams import prepare_logging
from flows.views.tables import Column, Console, print_line, print_table
from flows.views.values import cell, csv_line, json_text
from storage.answers import told_apart
from tasks.results.markup.markdown import as_markdown
from tasks.results.markup.visible import visible

SIGNS = [
    "[/x]",
    "[red]a[/red]",
    ":smile:",
    "\x1b[31m",
    "\r",
    "\n",
    "\u202e",
    "\udcff",
    "e\u0301",
    "\u4e2d|",
]
TEXTS = st.one_of(st.text(st.characters(exclude_categories=[]), max_size=8), st.sampled_from(SIGNS))
FLOATS = st.floats() | st.sampled_from([5e-324, -0.0, 1e-5, math.nan, math.inf])


def drawn(texts: list[str], encoding: str = "utf-8") -> str:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding)
    console = Console(file=file, width=9)
    print_table(console, [Column(text) for text in texts], [texts], title=texts[0])
    print_line(console, texts[0])
    file.flush()
    return raw.getvalue().decode(encoding)


@settings(deadline=None, max_examples=60)
@given(st.lists(TEXTS, min_size=1, max_size=3), st.sampled_from(["utf-8", "ascii", "latin-1"]))
@example(["", "\U0001f3fb"], "utf-8")  # a sign that takes no cell of a terminal
def test_every_cell_and_heading_is_there_in_full(texts: list[str], encoding: str) -> None:
    told = drawn(texts, encoding)
    lines = told.split("\n")
    for text in texts:
        assert sum(visible(text, encoding=encoding) in line for line in lines) >= 2
    assert lines[-2:] == [visible(texts[0], encoding=encoding), ""], "a line is one"
    assert all(one == "\n" or one.isprintable() or visible(one) == one for one in told)


@given(TEXTS, FLOATS)
def test_json_is_exact_and_ascii(text: str, number: float) -> None:
    written = json_text({text: [text, number, None, True, 2**70]})
    assert written.isascii()
    assert visible(written) == written
    ((key, (value, again, *rest)),) = json.loads(written).items()
    assert (key, value, rest) == (text, text, [None, True, 2**70])
    if isinstance(again, str):
        again = float(again)
    assert struct.pack("d", again) == struct.pack("d", number) or math.isnan(number)
    assert math.isnan(again) == math.isnan(number)


@given(st.lists(TEXTS, min_size=2, max_size=4), FLOATS)
def test_csv_is_exact(texts: list[str], number: float) -> None:
    (row,) = csv.reader(io.StringIO(csv_line([*texts, number]), newline=""))
    assert row == [*texts, repr(number)]


@given(TEXTS)
def test_a_text_in_a_line_of_the_log_begins_no_other(text: str) -> None:
    before = logging.getLogRecordFactory()
    prepare_logging(verbose=False)
    try:
        record = logging.getLogger("flows").makeRecord(
            "flows", logging.INFO, "a file", 1, "query %s\nand %d", (text, 2), None
        )
    finally:
        logging.setLogRecordFactory(before)
    assert record.getMessage() == f"query {visible(text)}\nand 2"


@given(FLOATS)
def test_a_float_in_a_table_tells_six_digits(number: float) -> None:
    assert f"{float(cell(number)):.6g}" == f"{number:.6g}"


@given(st.lists(st.sampled_from(["a", "a_1", "a_2", "b"]), max_size=8))
def test_columns_are_told_apart(names: list[str]) -> None:
    apart = told_apart(names)
    assert len(set(apart)) == len(names)
    assert all(
        new == old or new.startswith(f"{old}_") for new, old in zip(apart, names, strict=True)
    )


@given(TEXTS)
def test_markdown_and_html_are_inert(text: str) -> None:
    assert not set("|<>`*_[]\n\x1b") & set(as_markdown(text))


def test_an_address_is_no_link() -> None:
    told = "see https&#58;//a.example or www&#46;a.example: R@10"
    assert as_markdown("see https://a.example or www.a.example: R@10") == told
