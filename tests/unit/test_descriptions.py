"""Tables of described images: what pre-training reads of them, and everything it refuses."""

from collections.abc import Mapping
from typing import Any

import pytest

from cir_core.datasets.descriptions import Described, parse_described
from cir_core.datasets.near_names import ImageNames
from cir_core.datasets.selection import KeptOut
from cir_core.errors import AnnotationError
from cir_core.layers.wordpiece import Tokenizer
from cir_core.types import ImageId, Row, Rows

NOTHING = KeptOut(frozenset(), frozenset(), frozenset(), {}, whole=True)
LISTING = ("a.jpg", "b/c.png", "d.jpg")
POSITIONS = 8


def table(*entries: Mapping[str, Any]) -> Rows:
    columns = dict.fromkeys(name for entry in entries for name in entry)
    rows = tuple(Row(f"line {line}", entry) for line, entry in enumerate(entries, start=2))
    return Rows(tuple(columns), rows)


def line(image: Any = "a.jpg", text: Any = "a red boot", **others: Any) -> dict[str, Any]:
    return {"image": image, "text": text, **others}


def parse(
    descriptions: Rows, catalogue: Rows | None = None, *, kept: KeptOut = NOTHING
) -> Described:
    tokenizer = Tokenizer("bert-base-uncased")
    return parse_described(
        ("descriptions.csv", descriptions),
        None if catalogue is None else ("catalogue.csv", catalogue),
        ImageNames(map(ImageId, LISTING)),
        kept,
        lambda texts: [len(ids) for ids in tokenizer(list(texts))],
        POSITIONS,
    )


def faults_of(*tables: Rows) -> list[str]:
    with pytest.raises(AnnotationError) as caught:
        parse(*tables)
    return [fault.strip() for fault in caught.value.item.splitlines()]


def test_an_image_may_have_several_texts_and_ids_are_as_elsewhere() -> None:
    described = parse(table(line(), line("b/c.png", "clogs"), line("a.jpg", "boots")))
    assert described.texts == {"a.jpg": ["a red boot", "boots"], "b/c.png": ["clogs"]}
    assert described.entries is None


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (line(text=""), "line 3: text is empty"),
        (line(text=" \t"), "line 3: text is empty"),
        (line(text=None), "line 3: text is missing"),
        (line(text=12), "line 3: text is not a text: 12"),
        (line(text=["a", "b"]), "line 3: text is not a text: ['a', 'b']"),
        (line(image=7), "line 3: image is not a text: 7"),
        (line(image="../x.jpg"), "line 3: image leaves the folder: '../x.jpg'"),
        (line(text="a b c d e f g"), "line 3: text has 9 tokens, and the model reads 8"),
        (line(group=3), "line 3: group is not a text: 3"),
    ],
)
def test_a_wrong_line_is_refused_by_its_place(wrong: dict[str, Any], told: str) -> None:
    assert faults_of(table(line(), wrong)) == [told]


def test_all_faults_are_told_at_once() -> None:
    faults = faults_of(table(line(text=None), line(text="a b c d e f g"), line(image="/x.jpg")))
    assert [fault.partition(":")[0] for fault in faults] == ["line 2", "line 3", "line 4"]


def test_a_text_as_long_as_the_positions_is_read() -> None:
    assert parse(table(line(text="a b c d e f"))).texts == {"a.jpg": ["a b c d e f"]}


def test_stems_are_answered_with_how_images_are_called() -> None:
    (fault,) = faults_of(table(line("c")))
    assert "such as 'b/c.png'" in fault


def test_columns_and_rows_must_be_there() -> None:
    assert faults_of(table({"image": "a.jpg"})) == [
        "there is no column 'text'; found: 'image'"
    ]  # fmt: skip
    assert faults_of(Rows(("image", "text"), ())) == ["there are no descriptions in it"]


def test_what_is_kept_out_is_not_described_nor_is_the_rest_of_its_group() -> None:
    kept = KeptOut(
        frozenset({ImageId("a.jpg")}), frozenset({"x"}), frozenset({"boots"}), {}, whole=True
    )
    groups = [("a.jpg", ""), ("b/c.png", "boots"), ("b/c.png", "clogs"), ("d.jpg", "clogs")]
    lines = (line(image, group=group) for image, group in groups)
    assert list(parse(table(*lines), kept=kept).texts) == ["d.jpg"]


def test_a_catalogue_has_one_entry_for_every_described_image() -> None:
    texts = table(line(), line("d.jpg"))
    entries = table(line(text="red boot"), line("d.jpg", "clog"), line("b/c.png", "not described"))
    described = parse(texts, entries).entries
    assert described is not None
    assert described[ImageId("d.jpg")] == "clog"
    assert faults_of(texts, table(line())) == ["'d.jpg' is described and has no entry"]
    assert faults_of(texts, table(line(), line("d.jpg"), line())) == [
        "line 4: 'a.jpg' has an entry already, line 2"
    ]
    assert faults_of(texts, table(line(text=""), line("d.jpg"))) == ["line 2: text is empty"]


@pytest.mark.parametrize(
    ("vocabulary", "unknown"), [("demo", ["paisley", "☂"]), ("bert-base-uncased", ["☂"])]
)
def test_words_that_a_vocabulary_does_not_have_are_counted(
    vocabulary: Any, unknown: list[str]
) -> None:
    tokenizer = Tokenizer(vocabulary)
    words = tokenizer.words(["A red Paisley dress, paisley", "a red dress ☂"])
    assert (words["paisley"], words["red"], words[","]) == (2, 2, 1)
    assert sorted(tokenizer.unknown(words)) == unknown
