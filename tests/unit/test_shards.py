"""Names of parts tell whether a shard is whole."""

from hypothesis import given
from hypothesis import strategies as st

from tasks.shards import is_whole, parts, shard_name

ROWS, OTHER = range(256, 512), range(512, 700)


def test_a_shard_that_is_not_split_has_its_rows_for_a_name() -> None:
    assert [part.name for part in parts(ROWS, 9, 9)] == ["0000256-0000512"] == [shard_name(ROWS)]
    assert [part.name for part in parts(ROWS, 0, 9)] == [shard_name(ROWS)]


def test_a_part_of_a_shard_says_which_of_how_many() -> None:
    assert [part.name for part in parts(ROWS, 5, 4)] == [
        "0000256-0000512-0000000000-0000000004-of-5",
        "0000256-0000512-0000000004-0000000005-of-5",
    ]


@given(st.integers(0, 40), st.integers(1, 9), st.data())
def test_a_shard_is_whole_when_all_of_its_parts_are_there_and_only_then(
    items: int, size: int, data: st.DataObject
) -> None:
    every = [part.name for part in parts(ROWS, items, size)]
    others = [part.name for part in parts(OTHER, items, size)]
    kept = data.draw(st.sets(st.sampled_from(every)))
    assert is_whole({*kept, *others}, ROWS) == (len(kept) == len(every))
    assert is_whole({*kept, *others}, OTHER)
    assert not is_whole([], ROWS)
