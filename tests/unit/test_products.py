"""A product is there while every file is what was written, by this version, and only then."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from storage.products import Product, sums_in
from storage.store import LocalStore

SOURCES = {"0123456789ab": "c0ffee", "ba9876543210": "decade"}
FILES = {"index.html": b"<p>a page</p>", "images/a b.png": b"\x89PNG"}


@pytest.fixture
def product(tmp_path: Path) -> Product:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    made = Product(LocalStore(tmp_path), "", "report", "7", tuple(FILES))
    made.record(SOURCES)
    return made


def test_nothing_is_there_without_a_receipt(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    assert Product(LocalStore(tmp_path), "", "report", "7", ("a",)).sources() == {}
    assert Product(LocalStore(tmp_path / "none"), "", "report", "7", ()).sources() == {}


def test_a_product_tells_what_it_was_made_of(product: Product) -> None:
    assert product.sources() == SOURCES


def test_a_product_holds_what_it_was_made_of_and_nothing_else(product: Product) -> None:
    assert all(product.holds(name, content) for name, content in SOURCES.items())
    assert not product.holds("0123456789ab", "decade")
    assert not product.holds("c0ffee", "0123456789ab")
    (product.store.local("") / "index.html").write_bytes(b"")
    assert not product.holds("0123456789ab", "c0ffee")


def test_a_product_names_its_sources_whoever_has_changed_it_since(product: Product) -> None:
    (product.store.local("") / "index.html").write_bytes(b"a note of mine")
    assert product.names("0123456789ab")
    assert not product.names("c0ffee")
    assert not replace(product, version="77").names("0123456789ab")
    (product.store.local("") / "index.html").unlink()
    assert not product.names("0123456789ab")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "emptied": lambda path: path.write_bytes(b""),
    "flipped": lambda path: path.write_bytes(bytes([path.read_bytes()[0] ^ 1])),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\n"),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: os.mkdir(path.rename(path.with_name("moved")).with_name(path.name)),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("file", [*FILES, "report.sha256"])
def test_a_damaged_product_is_not_there(product: Product, file: str, damage: str) -> None:
    DAMAGE[damage](product.store.local("") / file)
    assert product.sources() == {}


def test_another_version_or_other_files_are_another_product(product: Product) -> None:
    for other in (
        replace(product, version="8"),
        replace(product, files=product.files[:1]),
        replace(product, files=(*product.files, "report.sha256")),
        replace(product, name="ranked"),
    ):
        assert other.sources() == {}


def test_no_flipped_bit_of_a_receipt_is_believed(product: Product) -> None:
    """But in the digest of a source, which is then another than any run's."""
    path = product.store.local("") / "report.sha256"
    good = path.read_bytes()
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        found = product.sources()
        assert found == {} or (found != SOURCES and b"# from" in good.splitlines()[1])


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs GNU coreutils")
def test_anybody_can_check_a_receipt(product: Product) -> None:
    folder = product.store.local("")
    command = ["sha256sum", "--check", "--strict", "report.sha256"]
    checked = subprocess.run(command, cwd=folder, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    (folder / "index.html").write_bytes(b"")
    assert subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode


def test_a_receipt_of_an_older_version_is_believed(product: Product) -> None:
    receipt = product.store.local("report.sha256")
    *lines, seal = receipt.read_text().splitlines(keepends=True)
    assert seal.startswith("# sha256 of the lines above: ")
    receipt.write_text("".join(lines))
    assert product.sources() == SOURCES


def test_every_flipped_bit_of_a_receipt_is_noticed(product: Product) -> None:
    receipt = product.store.local("report.sha256")
    good = receipt.read_bytes()
    for bit in range(8 * len(good)):
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ValueError, match=r"."):
            sums_in(bytes(bad).decode())
    assert sums_in(good.decode()).keys() == FILES.keys()
