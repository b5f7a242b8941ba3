"""A user's folder of images: what is searched, what is passed over, and what is a problem."""

import os
from pathlib import Path

import pytest

from cir_core.errors import AnnotationError, PreflightError
from cir_core.picture_files import FORMATS, READ, SYSTEM_FOLDERS, UNREAD
from cir_core.types import Listing
from storage.sources.folders import list_images


def filled(folder: Path, *names: str) -> Path:
    """The folder with empty files of these names."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def problems_of(listing: Listing) -> list[tuple[str, str, str]]:
    return [(problem.kind, problem.item, problem.cause) for problem in listing.problems]


def test_images_are_listed_by_path_in_the_order_of_characters(tmp_path: Path) -> None:
    filled(
        tmp_path, "b/Z.JPG", "b/a.webp", "a b.png", "c.avif", ".hidden.jpg", ".cache/x.jpg",
        "q.csv", "b/._a.jpg", "cir-store/artifacts/x.png", "cir-store/lock", "cir-store/drawn.png",
    )  # fmt: skip
    expected = ("a b.png", "b/Z.JPG", "b/a.webp", *(["c.avif"] if "AVIF" in FORMATS else []))
    assert list_images(tmp_path).images == expected


def test_pictures_of_other_kinds_are_listed_apart(tmp_path: Path) -> None:
    filled(tmp_path, "a.png", "IMG_1.HEIC", "b/logo.svg", "notes.txt", "@eaDir/x.heic", ".y.heic")
    listing = list_images(tmp_path)
    assert (listing.images, listing.unread) == (("a.png",), ("IMG_1.HEIC", "b/logo.svg"))


def test_no_ending_is_both_read_and_not() -> None:
    assert set(READ).isdisjoint(set(UNREAD) - {".avif"})
    assert len(set(READ)) == len(READ)
    assert all(name == name.lower() for name in (*READ, *UNREAD, *SYSTEM_FOLDERS))


def test_folders_that_systems_make_are_passed_over_at_any_depth(tmp_path: Path) -> None:
    names = ["@eaDir", "#recycle", "__MACOSX", "b/@eaDir", "$RECYCLE.BIN", "b/lost+found"]
    filled(tmp_path, "a.png", "b/c.png", *(f"{name}/sub/x.png" for name in names))
    listing = list_images(tmp_path)
    assert listing.images == ("a.png", "b/c.png")
    assert listing.passed_over == tuple(sorted(names))


def test_a_folder_of_that_name_is_listed_when_it_is_the_folder_of_images(tmp_path: Path) -> None:
    assert list_images(filled(tmp_path / "#recycle", "a.png")).images == ("a.png",)


# --- links


def test_links_at_the_top_are_followed_wherever_they_lead(tmp_path: Path) -> None:
    disk = filled(tmp_path / "disk", "x.png", "sub/y.png", "@eaDir/z.png")
    folder = filled(tmp_path / "cat", "a.png")
    (folder / "photos").symlink_to("../disk")
    (folder / "one.png").symlink_to(disk / "x.png")
    listing = list_images(folder)
    assert listing.images == ("a.png", "one.png", "photos/sub/y.png", "photos/x.png")
    assert listing.passed_over == ("photos/@eaDir",)
    assert (listing.links, listing.problems) == ((), ())
    (tmp_path / "alias").symlink_to(folder)
    assert list_images(tmp_path / "alias") == listing


def test_links_further_down_that_lead_out_are_problems_with_their_targets(tmp_path: Path) -> None:
    disk = filled(tmp_path / "disk", "x.png")
    folder = filled(tmp_path / "cat", "b/a.png")
    (folder / "b" / "photos").symlink_to("../../disk")
    (tmp_path / "third").mkdir()
    (folder / "top").symlink_to(disk)
    (disk / "third").symlink_to(tmp_path / "third")
    listing = list_images(folder)
    assert listing.images == ("b/a.png", "top/x.png")
    assert problems_of(listing) == [
        ("unsafe_path", "b/photos", f"the link leads to {disk}"),
        ("unsafe_path", "top/third", f"the link leads to {tmp_path / 'third'}"),
    ]


def test_links_to_what_is_listed_anyway_are_told_and_end(tmp_path: Path) -> None:
    folder = filled(tmp_path / "cat", "b/a.png")
    for link, target in {
        "again": "b",
        "self": ".",
        "up": "..",
        "b/round": "..",
        "b/c": ".",
    }.items():
        (folder / link).symlink_to(target)
    (folder / "loop").symlink_to("loop")
    (folder / "gone.png").symlink_to("nowhere.png")
    listing = list_images(folder)
    assert listing.images == ("b/a.png", "gone.png")  # the scan says what is wrong with a file
    assert listing.links == (
        ("again", str(folder / "b")), ("b/c", str(folder / "b")), ("b/round", str(folder)),
        ("self", str(folder)), ("up", str(tmp_path)),
    )  # fmt: skip
    assert listing.problems == ()


# --- what cannot be listed


def test_a_folder_that_cannot_be_listed_is_a_problem_and_the_others_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path, "a.png", "denied/x.png", "broken/y.png", "c/d.png")
    scandir = os.scandir
    errors = {"denied": PermissionError(13, "no"), "broken": OSError(5, "I/O error")}

    def refuse(path: str) -> object:
        error = errors.get(os.path.basename(path))
        if error is not None:
            error.filename = path
            raise error
        return scandir(path)

    monkeypatch.setattr("os.scandir", refuse)
    listing = list_images(tmp_path)
    assert listing.images == ("a.png", "c/d.png")
    assert problems_of(listing) == [
        ("io_error", "broken", "I/O error"),
        ("denied", "denied", "no"),
    ]


def test_the_folder_itself_must_be_listed(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="cannot be listed"):
        list_images(tmp_path / "nowhere")


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    try:
        (Path(str(tmp_path)) / "caf\udce9.jpg").touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(AnnotationError, match="not UTF-8") as caught:
        list_images(tmp_path)
    assert r"'caf\udce9.jpg'" in caught.value.item
