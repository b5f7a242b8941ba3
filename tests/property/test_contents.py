"""What is found again in another split: by brute force over bytes and words."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import schemas
from storage.tables import rows_of
from tasks.stages.contents import Contents
from tasks.stages.earlier.scores import Scores, keys_of
from tasks.stages.scoring import Rows, pairs_of

TEXTS = ["red", "red\nblue", "blue", "1", "", "one\n3\nred", "é", "e\u0301"]

Split = tuple[list[str], list[tuple[int, str, str | None]]]
"""The sha256 of each image; of each query, its reference (the last one was not ingested), and its
texts."""

splits = st.tuples(
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=6),
    st.lists(
        st.tuples(
            st.integers(0, 6), st.sampled_from(TEXTS), st.none() | st.sampled_from(TEXTS[:-1])
        ),
        max_size=8,
    ),
)


def contents_of(split: Split, prefix: str) -> Contents:
    """Ids are the split's own."""
    images, queries = split
    looks = [
        {name: {"image_id": f"{prefix}{row}", "sha256": sha256}.get(name, _any(kind))
         for name, kind in zip(schemas.IMAGES.names, schemas.IMAGES.types, strict=True)}
        for row, sha256 in enumerate(images)
    ]  # fmt: skip
    asked = [
        {
            "query_id": f"{prefix}q{row}",
            "category": "",
            "reference_id": f"{prefix}{reference}",
            "text": text,
            "targets": None,
            "subset": None,
            "other_text": other,
        }
        for row, (reference, text, other) in enumerate(queries)
    ]
    return Contents(
        pa.Table.from_pylist(looks, schemas.IMAGES), pa.Table.from_pylist(asked, schemas.QUERIES)
    )


def _any(kind: pa.DataType) -> object:
    return "" if pa.types.is_string(kind) else 0


@settings(deadline=None, max_examples=50)
@given(splits, splits)
def test_queries_are_one_question_if_reference_and_texts_are(one: Split, two: Split) -> None:
    mine, theirs = (contents_of(split, name) for split, name in ((one, "m"), (two, "t")))
    asked = mine.of_queries(mine.queries["query_id"])
    known = theirs.of_questions(theirs.queries["query_id"])
    for row, (reference, *texts) in enumerate(one[1]):
        same = [
            number
            for number, (other, *words) in enumerate(two[1])
            if texts == words
            and reference < len(one[0])
            and other < len(two[0])
            and one[0][reference] == two[0][other]
        ]
        assert rows_of(asked.slice(row, 1), known).tolist() == [next(iter(same), -1)]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 11), st.sampled_from([0.25, 0.5])), max_size=12),
    st.dictionaries(st.integers(0, 11), st.sampled_from([0.25, 0.5])),
    st.booleans(),
)
def test_a_score_is_known_if_it_is_of_all_rows_of_a_number(
    rows: list[tuple[int, float]], known: dict[int, float], has_prior: bool
) -> None:
    """Rows by number and cosine; scores by the cosine that they were made with."""
    questions, ordered = 3, sorted(rows)
    numbers = np.array([number for number, _ in ordered], dtype=np.int64)
    cosines = np.array([cosine for _, cosine in ordered], dtype=np.float32)
    there = np.array(sorted(known), dtype=np.int64)
    made_with = np.array([known[one] for one in sorted(known)], dtype=np.float32)
    key = keys_of(there, made_with if has_prior else None)
    scores = Scores(key, there.astype(np.float32), has_prior)
    pairs = pairs_of(
        Rows(pa.table({}), numbers, cosines), np.arange(3), scores, questions=questions
    )
    for number, score in zip(pairs.number.tolist(), pairs.known.tolist(), strict=True):
        mine = {cosine for one, cosine in rows if one == number}
        if number in known and (not has_prior or mine == {known[number]}):
            assert score == number
        else:
            assert np.isnan(score)
