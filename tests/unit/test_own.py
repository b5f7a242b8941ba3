"""Own data: the adapter's records, and everything it refuses, with its place."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from cir_core import protocols
from cir_core.datasets.own import Layout, OwnData
from cir_core.errors import AnnotationError, ImageProblem, UsageError
from cir_core.protocols import Protocol
from cir_core.types import Benchmark, ImageId, Listing, Row, Rows

REMOVED, KEPT = protocols.OWN
LISTING = ("a.jpg", "b/c.png", "d.jpg")


def table(*entries: Mapping[str, Any]) -> Rows:
    columns = dict.fromkeys(name for entry in entries for name in entry)
    rows = tuple(Row(f"line {line}", entry) for line, entry in enumerate(entries, start=2))
    return Rows(tuple(columns), rows)


def query(reference: str = "a.jpg", text: Any = "is red", **others: Any) -> dict[str, Any]:
    return {"reference": reference, "text": text, **others}


def parse(
    queries: Rows,
    gallery: Rows | None = None,
    *,
    protocol: Protocol = REMOVED,
    categories: Sequence[str] = (),
    listing: Sequence[str] = LISTING,
    images: str = ".",
    **others: Any,
) -> Benchmark:
    layout = Layout(images, "queries.csv", None if gallery is None else "gallery.csv")
    folder = Listing(tuple(map(ImageId, listing)), **others)
    content = {images: folder, "queries.csv": queries, "gallery.csv": gallery}
    return OwnData(layout).parse("val", categories, content.__getitem__, protocol)


def faults_of(queries: Rows, gallery: Rows | None = None, **options: Any) -> list[str]:
    with pytest.raises(AnnotationError) as caught:
        parse(queries, gallery, **options)
    assert caught.value.exit_code == 4
    return [line.strip() for line in caught.value.item.splitlines()]


# --- records


def test_all_images_are_one_gallery_and_a_label_is_not_needed() -> None:
    benchmark = parse(table(query(), query("d.jpg", "")))
    assert benchmark.galleries == {"own": LISTING}
    assert [one.query_id for one in benchmark.queries] == ["query-00000", "query-00001"]
    assert [one.targets for one in benchmark.queries] == [(), ()]
    assert benchmark.files == {name: (name,) for name in LISTING}
    assert benchmark.notes == ("queries.csv: 1 queries have an empty text",)


def test_ids_are_paths_below_the_folder_of_images() -> None:
    files = parse(table(query()), images="photos/big").files
    assert dict(files) == {name: (f"photos/big/{name}",) for name in LISTING}


def test_ids_labels_and_categories_are_taken_as_they_are_written() -> None:
    entry = query(target="b/c.png", category="007", query_id=" 0012 ")
    (one,) = parse(table(entry)).queries
    assert (one.query_id, one.category, one.targets) == (" 0012 ", "007", ("b/c.png",))


@pytest.mark.parametrize("written", [["d.jpg", "b/c.png", "d.jpg"], '["d.jpg", "b/c.png"]'])
def test_several_targets_are_a_list_or_json_in_a_cell(written: Any) -> None:
    (one,) = parse(table(query(targets=written))).queries
    assert one.targets == ("d.jpg", "b/c.png")


def test_categories_of_the_queries_alone_share_the_one_gallery() -> None:
    benchmark = parse(table(query(category="x"), query(category="y")))
    assert benchmark.galleries == {"x": LISTING, "y": LISTING}


def test_a_gallery_list_says_what_is_searched_and_in_which_order() -> None:
    benchmark = parse(table(query()), table({"image": "d.jpg"}, {"image": "b/c.png"}))
    assert benchmark.galleries == {"own": ("d.jpg", "b/c.png")}
    assert list(benchmark.files) == ["d.jpg", "b/c.png", "a.jpg"]


def test_a_gallery_list_with_categories_has_a_gallery_each_and_may_share_images() -> None:
    listed = table(
        {"image": "d.jpg", "category": "x"},
        {"image": "a.jpg", "category": "y"},
        {"image": "d.jpg", "category": "y"},
        {"image": "d.jpg", "category": "y"},
    )
    queries = table(query(category="y"), query(category="x"))
    assert parse(queries, listed).galleries == {"x": ("d.jpg",), "y": ("a.jpg", "d.jpg")}
    chosen = parse(queries, listed, categories=("x",))
    assert chosen.galleries == {"x": ("d.jpg",)}
    assert [one.query_id for one in chosen.queries] == ["query-00001"]


def test_an_unknown_category_is_a_usage_error_with_the_known() -> None:
    with pytest.raises(UsageError, match="'z'") as caught:
        parse(table(query(category="x")), categories=("z",))
    assert "'x'" in caught.value.remedy


def test_an_image_that_is_not_there_is_left_to_the_scan() -> None:
    files = parse(table(query(), query("lost.jpg", target="gone.jpg"))).files
    assert list(files) == [*LISTING, "lost.jpg", "gone.jpg"]


def test_columns_that_are_not_read_are_told() -> None:
    notes = parse(table(query(Target="d.jpg", note=""))).notes
    assert notes == ("queries.csv: columns that are not read: 'Target', 'note'",)


def test_what_is_not_searched_is_told_and_counted() -> None:
    notes = parse(
        table(query()),
        unread=("a.heic", "b.HEIC", "c.svg"),
        passed_over=("@eaDir", "b/@eaDir", "lost+found"),
        links=(("b/up", "/data"),),
    ).notes
    assert notes == (
        "3 files look like pictures and are not read: 2 .heic, 1 .svg; save as JPEG or PNG: "
        "'a.heic', 'b.HEIC', 'c.svg'",
        "folders that systems make are passed over: 2 @eaDir (thumbnails of a Synology NAS), "
        "1 lost+found (what Linux saved of a damaged disk)",
        "1 links to folders are not followed, since they lead to where the images are: 'b/up' to "
        "'/data'",
    )


def test_a_folder_that_cannot_be_listed_is_a_problem_of_the_benchmark() -> None:
    denied = ImageProblem("denied", "a folder cannot be listed", item="b/x")
    assert parse(table(query()), problems=(denied,)).problems == (denied,)


def test_links_may_stand_in_the_folder_of_images() -> None:
    assert parse(table(query()), images="photos/big").folders == ("photos/big",)


def test_an_id_in_another_unicode_form_means_the_only_image_like_it() -> None:
    composed, apart = "\u00e9t\u00e9.jpg", "e\u0301te\u0301.jpg"
    listed = table({"image": composed}, {"image": "d.jpg"})
    queries = table(query(composed, target="d.jpg"), query("d.jpg", target=composed))
    benchmark = parse(queries, listed, listing=(*LISTING, apart))
    assert benchmark.galleries == {"own": (apart, "d.jpg")}
    assert [one.reference_id for one in benchmark.queries] == [apart, "d.jpg"]
    assert [one.targets for one in benchmark.queries] == [("d.jpg",), (apart,)]
    assert benchmark.notes == (
        "1 ids are written in another Unicode form than the files' names, which count: "
        r"'\xe9t\xe9.jpg' is 'e\u0301te\u0301.jpg'",
    )


def test_an_id_that_is_an_image_is_that_image_whatever_is_like_it() -> None:
    composed, apart = "\u00e9.jpg", "e\u0301.jpg"
    benchmark = parse(table(query(composed), query(apart)), listing=(composed, apart))
    assert [one.reference_id for one in benchmark.queries] == [composed, apart]
    assert benchmark.notes == ()


def test_only_the_declared_files_and_the_folder_are_read() -> None:
    assert OwnData().annotation_files("val", ()) == ["queries.csv"]
    layout = Layout(queries="q.jsonl", gallery="g.csv")
    assert OwnData(layout).annotation_files("val", ()) == ["q.jsonl", "g.csv"]


def test_one_table_is_val_and_train_and_there_is_no_test() -> None:
    assert OwnData().annotation_files("train", ()) == OwnData().annotation_files("val", ())
    with pytest.raises(UsageError, match="no split test"):
        OwnData().annotation_files("test", ())


# --- what is refused


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (query(""), "reference is missing"),
        (query(None), "reference is missing"),  # type: ignore[arg-type]
        (query("", ""), "reference and text are empty"),
        (query(text=None), "text is missing"),
        (query(text=3), "text is not a text: 3"),
        (query(123), "reference is not a text: 123"),  # type: ignore[arg-type]
        (query("/etc/passwd"), "reference is an absolute path: '/etc/passwd'"),
        (query("../a.jpg"), "reference leaves the folder: '../a.jpg'"),
        (query("b/../../a.jpg"), "reference leaves the folder: 'b/../../a.jpg'"),
        (query("./a.jpg"), "reference is not written plainly (a/b.jpg): './a.jpg'"),
        (query("b//c.png"), "reference is not written plainly (a/b.jpg): 'b//c.png'"),
        (query("a\0"), r"reference holds a NUL character: 'a\x00'"),
        (query(text="\ud800"), r"text is not UTF-8 text: '\ud800'"),
        (query(text="caf\udce9"), r"text is not UTF-8 text: 'caf\udce9'"),
        (query(target=0), "target is not a text: 0"),
        (query(target="../x"), "target leaves the folder: '../x'"),
        (query(targets="d.jpg"), "targets is not a list of texts: 'd.jpg'"),
        (query(targets={}), "targets is not a list of texts: {}"),
        (query(targets=["d.jpg", None]), "target is missing"),
        (query(target="d.jpg", targets=["d.jpg"]), "target and targets are both given"),
        (query(category=""), "category is missing"),
        (query(category="average"), "category 'average' is the name of a mean over categories"),
        (query(query_id=7), "query_id is not a text: 7"),
        (query(query_id="q1"), "query_id 'q1' is already that of line 2"),
        (
            query(target="a.jpg"),
            "the target is the reference, which may not answer under this protocol",
        ),
    ],
)
def test_a_bad_row_is_refused_by_its_line(entry: dict[str, Any], told: str) -> None:
    sound = query(category="x", query_id="q1")
    entry = {"category": "x", "query_id": "q2"} | entry
    assert faults_of(table(sound, entry)) == [f"line 3: {told}"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("A.jpg", "differs in upper and lower case from the image 'a.jpg': 'A.jpg'"),
        ("B/C.PNG", "differs in upper and lower case from the image 'b/c.png': 'B/C.PNG'"),
        ("\u00c9.jpg", "differs in upper and lower case from the image '\u00e9.jpg': '\u00c9.jpg'"),
        ("a.jpg ", "begins or ends with a space; the image is 'a.jpg': 'a.jpg '"),
        ("\ta.jpg", r"begins or ends with a space; the image is 'a.jpg': '\ta.jpg'"),
        ("b\\c.png", r"is written with backslashes; the image is 'b/c.png': 'b\\c.png'"),
        ("a.HEIC", "is of a kind that is not read (.heic); save it as JPEG or PNG: 'a.HEIC'"),
        (
            "\u212b.jpg",
            r"has another Unicode form than each of '\xc5.jpg', 'A\u030a.jpg': "
            "'\u212b.jpg'",
        ),
    ],
)
def test_a_name_near_an_images_is_refused_with_the_image(name: str, told: str) -> None:
    listing = (*LISTING, "\u00e9.jpg", "\u00c5.jpg", "A\u030a.jpg")
    queries = table(query(), query(name), query(target=name))
    assert faults_of(queries, listing=listing) == [
        f"line 3: reference {told}",
        f"line 4: target {told}",
    ]
    listed = table({"image": "a.jpg"}, {"image": name})
    assert faults_of(table(query()), listed, listing=listing) == [f"line 3: image {told}"]


def test_a_reference_in_another_unicode_form_may_not_answer_either() -> None:
    queries = table(query("\u00e9.jpg", target="e\u0301.jpg"))
    (told,) = faults_of(queries, listing=("e\u0301.jpg",))
    assert "the target is the reference" in told


def test_all_faults_are_told_at_once() -> None:
    queries = table(query("/x"), query(text=None, target="../y"), query())
    broken = Rows(queries.columns, (*queries.entries, Row("line 5", {}, "is not CSV: why")))
    assert faults_of(broken) == [
        "line 2: reference is an absolute path: '/x'",
        "line 3: text is missing",
        "line 3: target leaves the folder: '../y'",
        "line 5: is not CSV: why",
    ]


def test_very_many_faults_are_counted() -> None:
    told = faults_of(table(*[query("/x")] * 51, query()))
    assert len(told) == 51
    assert told[-1] == "... and 1 more"


def test_missing_columns_are_told_with_the_columns_found() -> None:
    assert faults_of(table({"ref;text": "a"})) == [
        "there is no column 'reference'; found: 'ref;text'",
        "there is no column 'text'; found: 'ref;text'",
    ]
    assert faults_of(Rows((), ()))[0] == "there is no column 'reference'; found: none"
    assert faults_of(Rows(("reference", "text"), ())) == ["there are no queries in it"]


def test_a_reference_may_be_its_own_answer_where_it_is_kept() -> None:
    (one,) = parse(table(query(target="a.jpg")), protocol=KEPT).queries
    assert one.targets == (one.reference_id,)


def test_ids_that_are_all_named_in_another_way_are_told_once() -> None:
    (told,) = faults_of(table(query("c"), query("nothing")))
    assert "the first is 'c'" in told
    assert "such as 'b/c.png'" in told


def test_a_query_needs_a_category_of_the_gallery_list() -> None:
    listed = table({"image": "a.jpg", "category": "x"})
    assert faults_of(table(query()), listed) == [
        "there is no column 'category'; found: 'reference', 'text'"
    ]
    assert faults_of(table(query(category="z")), listed) == [
        "line 2: category 'z' is not in the gallery list, which has 'x'"
    ]


def test_a_gallery_list_is_judged_by_line_too() -> None:
    listed = table({"image": "a.jpg", "category": "x"}, {"image": "/b", "category": "micro"})
    assert faults_of(table(query(category="x")), listed) == [
        "line 3: image is an absolute path: '/b'",
        "line 3: category 'micro' is the name of a mean over categories",
    ]
    assert faults_of(table(query()), table({"name": "a.jpg"})) == [
        "there is no column 'image'; found: 'name'"
    ]


def test_a_folder_without_images_is_refused_with_what_there_is() -> None:
    with pytest.raises(AnnotationError, match="no images") as caught:
        parse(table(query()), listing=(), unread=("a.heic",))
    assert "1 file looks like a picture and is not read: 1 .heic" in caught.value.cause
