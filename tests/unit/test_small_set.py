"""The made set of ``benchmarks/small_set.py``: what it says of itself."""

import re
from collections.abc import Mapping
from functools import cache

from benchmarks.small_set import (
    FAMILY_SIZE,
    MOST_CHANGES,
    PARTS,
    UNSEEN_PAIRS,
    UNSEEN_VALUES,
    Content,
    build,
    kind_of,
)
from cir_core.datasets.demo.garments import COLOURS, NECKS, PATTERNS, PRINTS, differences


@cache
def made() -> Mapping[str, Content]:
    return build()


def test_it_has_the_size_that_users_bring() -> None:
    train = made()["train"]
    assert len(train.pictures) == 350 * FAMILY_SIZE
    assert 12_000 < len(train.queries) <= 13_300
    assert len(made()["test"].queries) == 80 * 12


def test_training_shows_and_says_nothing_of_the_unseen() -> None:
    train = made()["train"]
    assert {kind_of(garment) for garment in train.pictures.values()} == {"seen"}
    texts = " ".join(row["text"] for row in [*train.queries, *train.descriptions])
    words = set(re.findall(r"[a-z]+", texts))
    assert not words & (UNSEEN_VALUES | {"diagonally", "slanted"})
    assert {"red", "checked", "heart", "turtleneck"} <= words


def test_each_unseen_pair_is_made_of_seen_values() -> None:
    shown = {value for g in made()["train"].pictures.values() for value in vars(g).values()}
    assert {value for pair in UNSEEN_PAIRS for value in pair} <= shown
    assert set(COLOURS) | {*PATTERNS, *NECKS, *PRINTS} == (
        UNSEEN_VALUES | (shown & (set(COLOURS) | {*PATTERNS, *NECKS, *PRINTS}))
    )


def test_queries_bear_the_kind_of_both_their_pictures() -> None:
    for name in ("val", "test"):
        content, kinds = made()[name], PARTS[name].families
        asked = [row["category"] for row in content.queries]
        assert {kind: asked.count(kind) // 12 for kind in kinds} == kinds
        for row in content.queries:
            before, after = (content.pictures[row[end]] for end in ("reference", "target"))
            assert kind_of(before) == kind_of(after) == row["category"]
            assert 0 < len(differences(before, after)) <= MOST_CHANGES


def test_groups_share_no_picture_and_no_garment_is_shown_twice() -> None:
    group_of: dict[str, str] = {}
    for content in made().values():
        for row in content.queries:
            for end in ("reference", "target"):
                assert group_of.setdefault(row[end], row["group"]) == row["group"]
    garments = [garment for content in made().values() for garment in content.pictures.values()]
    assert len(set(garments)) == len(garments)
