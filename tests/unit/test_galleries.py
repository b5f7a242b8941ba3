"""The size and the hash of what was searched."""

import hashlib
from collections.abc import Sequence

import pytest

from cir_core.metrics.galleries import searched, together
from cir_core.types import ImageId

BYTES = {ImageId(name): hashlib.sha256(name.encode()).hexdigest() for name in "abcd"}


def ids(names: Sequence[str]) -> list[ImageId]:
    return [ImageId(name) for name in names]


def test_the_hash_is_that_of_the_lines_in_gallery_order() -> None:
    lines = f"{BYTES[ImageId('b')]} b\n{BYTES[ImageId('a')]} a\n"
    gallery = searched("dress", ids("ba"), BYTES)
    assert gallery.sha256 == hashlib.sha256(lines.encode()).hexdigest()
    assert (gallery.category, gallery.images, gallery.missing) == ("dress", 2, 0)


def test_members_that_cannot_be_used_are_counted_and_not_hashed() -> None:
    short = searched("dress", ids("abxyc"), BYTES)
    assert (short.images, short.missing) == (3, 2)
    assert short.sha256 == searched("dress", ids("abc"), BYTES).sha256


@pytest.mark.parametrize("members", ["ab", "acb", "abd"])
def test_another_member_or_order_has_another_hash(members: str) -> None:
    assert searched("d", ids(members), BYTES).sha256 != searched("d", ids("abc"), BYTES).sha256


def test_other_bytes_have_another_hash() -> None:
    other = BYTES | {ImageId("a"): "0" * 64}
    assert searched("d", ids("abc"), other).sha256 != searched("d", ids("abc"), BYTES).sha256


def test_an_empty_gallery_has_the_hash_of_nothing() -> None:
    assert searched("d", [], BYTES).sha256 == hashlib.sha256().hexdigest()


def test_together_sums_and_names_every_gallery() -> None:
    dress, shirt = searched("dress", ids("abx"), BYTES), searched("shirt", ids("cy"), BYTES)
    both = together("average", [dress, shirt])
    assert (both.category, both.images, both.missing) == ("average", 3, 2)
    lines = f"{dress.sha256} dress\n{shirt.sha256} shirt\n"
    assert both.sha256 == hashlib.sha256(lines.encode()).hexdigest()
    assert both.sha256 != together("average", [shirt, dress]).sha256
    assert together("average", [dress]) == dress
