"""Is a copy whole: judged from a benchmark of a few records, by hand."""

from dataclasses import replace

import pytest

from cir_core.datasets.about import FASHION_IQ, Counts
from cir_core.doctor.checkup import (
    Counted,
    Evaluable,
    ambiguous_queries,
    compare_counts,
    evaluable,
    in_several_categories,
    misnamed,
    misplaced,
    outside_gallery,
    same_bytes,
    several_files,
)
from cir_core.doctor.findings import Finding, State, blocked, counted, exit_code_of, share
from cir_core.doctor.verdicts import (
    judge_counts,
    judge_images,
    judge_protocols,
    judge_queries,
    judge_texts,
)
from cir_core.errors import AnnotationError
from cir_core.protocols import PROTOCOLS
from cir_core.retrievers.blip.config import DEMO_BLIP
from cir_core.types import Benchmark, ImageId, Query, QueryId

KEPT, REMOVED = PROTOCOLS["fiq-original-kept"], PROTOCOLS["fiq-original-removed"]


def ids(names: str) -> tuple[ImageId, ...]:
    return tuple(ImageId(name) for name in names)


def query(
    name: str,
    reference: str,
    targets: str,
    *,
    text: str = "t",
    category: str = "dress",
    subset: str = "",
) -> Query:
    return Query(
        query_id=QueryId(name),
        category=category,
        reference_id=ImageId(reference),
        text=text,
        targets=ids(targets),
        subset=ids(subset),
    )


def benchmark(*queries: Query, dress: str = "abcd", shirt: str = "dxy") -> Benchmark:
    galleries = {"dress": ids(dress), "shirt": ids(shirt)}
    files: dict[ImageId, tuple[str, ...]] = {
        image: (f"images/{image}.jpg", f"images/{image}.png") for image in ids(dress + shirt)
    }
    return Benchmark(galleries=galleries, queries=queries, files=files)


# --- counts


def test_counts_are_per_category_beside_the_published_ones() -> None:
    queries = (query("1", "a", "b"), query("2", "x", "y", category="shirt"))
    published = Counts({"dress": 1, "shirt": 2}, {"dress": 4})
    assert compare_counts(benchmark(*queries), published) == [
        Counted("dress", "queries", 1, 1),
        Counted("dress", "gallery", 4, 4),
        Counted("shirt", "queries", 2, 1),
        Counted("shirt", "gallery", None, 3),
    ]
    assert {one.expected for one in compare_counts(benchmark(), None)} == {None}


def test_other_counts_are_a_problem_and_unpublished_ones_a_note() -> None:
    about = replace(FASHION_IQ, counts={"val": Counts({"dress": 0, "shirt": 9}, {"dress": 4})})
    judged = judge_counts(about, "val", benchmark())
    assert [finding.state for finding in judged] == ["ok", "ok", "problem", "note"]
    assert (judged[2].part, judged[2].check) == ("val", "shirt: queries")
    assert (judged[2].found, judged[2].expected) == (0, 9)


# --- queries


def test_queries_that_ask_the_same_for_different_images_are_ambiguous() -> None:
    queries = [
        query("1", "a", "b"),
        query("2", "a", "c"),
        query("3", "a", "d", text="u"),  # other words
        query("4", "b", "c"),  # another reference
        query("5", "a", "x", category="shirt"),  # another gallery
        query("6", "b", "c"),  # the same query again: repeated, not ambiguous
        query("7", "d", ""),  # without label
        query("8", "d", ""),
    ]
    assert ambiguous_queries(queries) == [(queries[0], queries[1])]


def test_references_and_targets_outside_the_gallery_are_told_apart() -> None:
    inside, lost_reference = query("1", "a", "b"), query("2", "x", "b")
    lost_target, half = query("3", "a", "z"), query("4", "a", "bz")
    found = outside_gallery(benchmark(inside, lost_reference, lost_target, half))
    assert found == ([lost_reference], [lost_target, half])


def test_an_image_in_two_galleries_is_found() -> None:
    assert in_several_categories(benchmark()) == {ImageId("d"): ("dress", "shirt")}


def test_of_the_queries_only_what_is_unusual_is_told() -> None:
    assert judge_queries("val", benchmark(query("1", "a", "b"), shirt="xy")) == []
    judged = judge_queries(
        "val", benchmark(query("1", "a", "z"), query("2", "a", "b"), query("3", "x", "b"))
    )
    assert [(one.check, one.state, one.found, one.examples) for one in judged] == [
        ("targets not in the gallery", "problem", 1, ("1",)),
        ("references not in the gallery", "note", 1, ("3",)),
        ("groups that ask the same but want other images", "note", 1, ("1 and 2: 't'",)),
        ("images in several categories", "note", 1, ("d: dress, shirt",)),
    ]


# --- what can be evaluated


@pytest.mark.parametrize(
    ("asked", "usable", "answerable"),
    [
        (query("1", "a", "b"), "abcd", True),
        (query("1", "a", "b"), "acd", False),  # its target is lost
        (query("1", "a", "b"), "bcd", False),  # its reference is lost
        (query("1", "a", "bc"), "ac", True),  # one of two targets is enough
        (query("1", "a", "z"), "abcdz", False),  # usable, and in no gallery
        (query("1", "a", ""), "a", True),  # no label to lose
        (query("1", "a", "b", subset="cd"), "abc", False),  # a member of its subset is lost
    ],
)
def test_which_query_can_be_evaluated(asked: Query, usable: str, answerable: bool) -> None:
    assert evaluable(benchmark(asked), KEPT, set(ids(usable))).usable_queries == int(answerable)


def test_a_removed_reference_cannot_be_the_answer() -> None:
    both = benchmark(query("1", "a", "a"))
    assert evaluable(both, KEPT, set(ids("abcd"))).usable_queries == 1
    assert evaluable(both, REMOVED, set(ids("abcd"))).usable_queries == 0


def test_members_of_all_galleries_are_counted() -> None:
    assert evaluable(benchmark(), KEPT, set(ids("ad"))) == Evaluable(0, 0, 7, 3)  # d twice


def test_protocols_that_differ_in_texts_alone_share_their_rows() -> None:
    content = benchmark(query("1", "a", "b"), query("2", "c", "b"))
    chosen = [one for one in PROTOCOLS.values() if one.dataset == "fiq"]
    judged = judge_protocols("val", chosen, lambda _protocol: content, set(ids("abdxy")))
    assert len(judged) == 2 * 4  # queries and gallery of {original, union} x {kept, removed}
    first, second = judged[:2]
    assert first == Finding(
        "val: evaluable", "fiq-original-kept (+ 3 alike): queries", "problem", 1, 2, 50.0
    )
    assert (second.found, second.expected) == (6, 7)


# --- images


def test_files_of_the_same_bytes_are_grouped() -> None:
    hashes = dict(zip(ids("abcd"), ("1", "2", "1", "3"), strict=True))
    assert same_bytes(hashes) == [("a", "c")]
    assert same_bytes({}) == []


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ("B0.JPG", "images/B0.JPG"),
        ("B0.jpeg", "images/B0.jpeg"),
        ("b0.jpg", "images/b0.jpg"),
        ("B0.webp", "images/B0.webp"),
        ("B0.json", None),  # no picture
        ("B01.jpg", None),
        ("B0", None),
    ],
)
def test_another_case_or_extension_is_found(there: str, found: str | None) -> None:
    missing = {"B0": ("images/B0.jpg", "images/B0.png")}
    other = misnamed(missing, {"images": [there, "c.jpg"]}.__getitem__)
    assert other == ({"B0": found} if found else {})


def test_another_unicode_form_is_found_and_so_is_a_file_in_the_root() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    names = {"images": [f"{decomposed}.jpg"], ".": ["A.PNG"]}
    assert misnamed({composed: (f"images/{composed}.jpg",)}, names.__getitem__) == {
        composed: f"images/{decomposed}.jpg"
    }
    assert misnamed({"a": ("a.png",)}, names.__getitem__) == {"a": "A.PNG"}


def test_a_file_in_a_folder_around_is_found() -> None:
    names = {
        "images": ["dress", "a.jpg", "shirt"], "images/dress": ["B.png", "b2.jpg"],
        "images/shirt": ["b.jpg"], ".": ["images", "c.jpg"],
    }  # fmt: skip
    lost = {one: (f"images/{one}.jpg", f"images/{one}.png") for one in "abcd"}
    found = misplaced(lost, lambda folder: names.get(folder, []))
    assert found == {"b": "images/dress/B.png", "c": "c.jpg"}


def test_images_with_several_files_are_told_with_the_one_that_counts() -> None:
    names = {"images": {"a.jpg", "a.png", "b.png"}, ".": {"c.jpg"}}
    files: dict[ImageId, tuple[str, ...]] = {
        ImageId(one): (f"images/{one}.jpg", f"images/{one}.png") for one in "ab"
    }
    files[ImageId("c")] = ("c.jpg",)
    assert several_files(files, names.__getitem__) == {"a": ["images/a.jpg", "images/a.png"]}


def test_missing_ones_that_lie_elsewhere_are_not_said_to_be_lost() -> None:
    content = benchmark(dress="ab")
    lost = [{"item": one, "kind": "missing", "message": "no file for an image"} for one in "ab"]
    names = {"images": {"dress"}, "images/dress": {"a.jpg", "b.jpg"}, ".": {"images"}}
    judged = judge_images(FASHION_IQ, {"val": content}, {}, lost, lambda it: names.get(it, set()))
    told = {one.check: one for one in judged}
    assert FASHION_IQ.source_url not in told["missing"].remedy
    assert told["missing ones in another folder"].examples == (
        "images/dress/a.jpg for images/a.jpg",
        "images/dress/b.jpg for images/b.jpg",
    )


def test_texts_are_judged_by_what_a_model_reads() -> None:
    asked = [
        Query(QueryId("long"), "dress", ImageId("a"), "red " * 70),
        Query(QueryId("long too"), "dress", ImageId("a"), "red", other_text="red " * 63),
        Query(QueryId("strange"), "dress", ImageId("a"), "xqzvk"),
        Query(QueryId("fine"), "dress", ImageId("a"), "red " * 62),
    ]
    too_long, strange = judge_texts("val", asked, DEMO_BLIP)
    assert (too_long.state, too_long.found, too_long.examples) == (
        "problem", 2, ("long: 72 tokens", "long too: 65 tokens"),
    )  # fmt: skip
    assert (strange.state, strange.found, strange.examples) == ("note", 1, ("strange: 'xqzvk'",))
    assert judge_texts("val", asked[3:], DEMO_BLIP) == []


def test_images_are_judged_compactly() -> None:
    content = benchmark(dress="abcd", shirt="xyz")
    hashes = {ImageId(name): name for name in "abx"} | {ImageId("y"): "x"}
    problems = [
        {"item": "c", "kind": "missing", "message": "no file for an image"},
        {"item": "d", "kind": "empty", "message": "an image file is empty: images/d.jpg"},
        {"item": "z", "kind": "missing", "message": "no file for an image"},
    ]
    about = replace(FASHION_IQ, counts={"val": Counts({}, {})}, distinct_images=8)
    names = {"images": {"a.jpg", "a.png", "b.jpg", "C.JPG", "d.jpg", "x.jpg", "y.jpg"}}
    judged = judge_images(
        about, {"val": content}, hashes, problems, lambda folder: names.get(folder, set())
    )
    assert [(one.check, one.state, one.found, one.expected) for one in judged] == [
        ("different ids", "problem", 7, 8),
        ("usable", "problem", 4, 7),
        ("missing", "problem", 2, 0),
        ("empty", "problem", 1, 0),
        ("missing ones under another case or extension", "problem", 1, 0),
        ("with two files, the first counts", "note", 1, 0),
        ("groups of the same bytes", "note", 1, 0),
    ]
    told = {one.check: one for one in judged}
    assert told["missing"].examples == ("c", "z")
    assert about.source_url in told["missing"].remedy
    assert told["missing ones under another case or extension"].examples == (
        "images/C.JPG for images/c.jpg",
    )
    assert told["groups of the same bytes"].examples == ("x, y",)


def test_the_number_of_ids_is_compared_only_where_all_splits_were_read() -> None:
    judged = judge_images(FASHION_IQ, {"val": benchmark()}, {}, [], lambda _folder: ())
    assert [one.check for one in judged] == ["usable"]


# --- findings


@pytest.mark.parametrize(
    ("states", "code"),
    [([], 0), (["ok", "note"], 0), (["note", "problem"], 3), (["problem", "blocked", "ok"], 4)],
)
def test_the_worst_state_is_the_exit_code(states: list[State], code: int) -> None:
    assert exit_code_of(Finding("p", "c", state, 0) for state in states) == code


def test_only_the_first_examples_are_kept_and_all_are_counted() -> None:
    finding = counted("images", "missing", "problem", map(str, range(74_381)))
    assert finding.found == 74_381
    assert finding.examples == ("0", "1", "2", "3", "4")


def test_a_share_of_nothing_is_all_of_it() -> None:
    assert share("p", "c", 0, 0).percent == 100.0
    assert share("p", "c", 1, 3).percent == pytest.approx(100 / 3)


def test_an_error_as_a_finding_keeps_its_lines() -> None:
    error = AnnotationError("what", item="item\nother", cause="cause", remedy="remedy")
    assert blocked("val", "annotations", error) == Finding(
        "val",
        "annotations",
        "blocked",
        "what",
        examples=("item", "other", "cause"),
        remedy="remedy",
    )
