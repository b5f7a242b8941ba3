"""The published caption rule, letter by letter."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cir_core.datasets.captions import join_captions


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ("is red.", "Has a belt?", "Is red and Has a belt"),
        ("is RED with a V Neck", "is RED", "Is red with a v neck and is RED"),
        (" .,? is 3.5 inches, long ?,. ", ".", "Is 3.5 inches, long and "),
        ("", "is long", " and is long"),
        ("?", ".", " and "),
        ("is new!", "\tis old\n", "Is new! and \tis old\n"),
    ],
)
def test_published_rule(first: str, second: str, text: str) -> None:
    assert join_captions(first, second, "published") == text


@settings(deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_reversed_is_published_with_the_captions_swapped(first: str, second: str) -> None:
    assert join_captions(first, second, "reversed") == join_captions(second, first, "published")


@settings(deadline=None)
@given(st.text(alphabet="aB1!"), st.text(alphabet="aB1!"), st.text(alphabet=".?, "))
def test_marks_at_the_ends_change_nothing(first: str, second: str, marks: str) -> None:
    dressed = join_captions(marks + first + marks, marks + second + marks, "published")
    assert dressed == join_captions(first, second, "published")
