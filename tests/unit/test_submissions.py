"""CIRR's and CIRCO's submission files: built from rankings, and every fault told by its name."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from cir_core.submissions import circo, cirr
from cir_core.submissions.faults import EXAMPLE_WIDTH, EXPLANATIONS, Fault, Faults, shown
from cir_core.submissions.formats import compact_json
from tests.support.made_runs import circo_benchmark, cirr_benchmark

CIRR = cirr_benchmark(60, 4)
CIRCO = circo_benchmark(60, 4)
FIRST = CIRR.queries[0]

Submission = dict[str, Any]


def cirr_submission(metric: cirr.Metric) -> Submission:
    """Every image of the gallery but the reference, or every member, in gallery order."""
    return cirr.build(
        metric,
        {
            query.query_id: query.subset
            if metric == "recall_subset"
            else [image for image in CIRR.galleries["cirr"] if image != query.reference_id]
            for query in CIRR.queries
        },
    )


def circo_submission() -> Submission:
    return dict(circo.build({query.query_id: CIRCO.galleries["circo"] for query in CIRCO.queries}))


def cirr_faults(content: Any, *, with_annotations: bool = True) -> dict[str, Fault]:
    raw = content if isinstance(content, bytes) else compact_json(content).encode()
    benchmark = CIRR if with_annotations else None
    verdict = cirr.check(raw, "test", benchmark=benchmark, queries=len(CIRR.queries))
    return {fault.kind: fault for fault in verdict.faults}


def circo_faults(content: Any, *, with_annotations: bool = True) -> dict[str, Fault]:
    raw = content if isinstance(content, bytes) else compact_json(content).encode()
    benchmark = CIRCO if with_annotations else None
    verdict = circo.check(raw, "test", benchmark=benchmark, queries=len(CIRCO.queries))
    return {fault.kind: fault for fault in verdict.faults}


# --- what is right


@pytest.mark.parametrize("metric", ["recall", "recall_subset"])
@pytest.mark.parametrize("with_annotations", [True, False])
def test_a_good_cirr_file_has_no_fault(metric: cirr.Metric, with_annotations: bool) -> None:
    submission = cirr_submission(metric)
    assert cirr_faults(submission, with_annotations=with_annotations) == {}
    assert submission["version"] == "rc2"
    assert submission["metric"] == metric
    assert {len(submission[query.query_id]) for query in CIRR.queries} == (
        {50} if metric == "recall" else {3}
    )


@pytest.mark.parametrize("with_annotations", [True, False])
def test_a_good_circo_file_has_no_fault(with_annotations: bool) -> None:
    assert circo_faults(circo_submission(), with_annotations=with_annotations) == {}
    assert circo_submission()["0"][:3] == [100, 107, 114]


def test_the_first_answers_are_kept_in_their_order() -> None:
    ranking = [f"test1-{number}-0-img1" for number in range(60, 0, -1)]
    built = cirr.build("recall", {"1": ranking})
    assert built["1"] == ranking[:50]
    assert circo.build({"0": ["9", "7", "8"]}) == {"0": [9, 7, 8]}


def test_what_was_checked_is_told() -> None:
    content = compact_json(cirr_submission("recall")).encode()
    full = cirr.check(content, "test", benchmark=CIRR, queries=4)
    form = cirr.check(content, "test", benchmark=None, queries=4)
    assert "CIRR test, recall: 4 lists of 50" in full.checked
    assert "against the annotations" in full.checked
    assert "form only" in form.checked
    assert "--data-root" in form.checked


# --- what is wrong


def _without(key: str) -> Callable[[Submission], Any]:
    return lambda good: {name: value for name, value in good.items() if name != key}


def _with(key: str, value: Any) -> Callable[[Submission], Any]:
    return lambda good: {**good, key: value}


def _answer(value: Any, place: int = 1) -> Callable[[Submission], Any]:
    """Another answer at one place of the first query's list."""

    def spoil(good: Submission) -> Submission:
        answers = list(good[FIRST.query_id])
        answers[place] = value
        return {**good, FIRST.query_id: answers}

    return spoil


def _repeat_first(good: Submission) -> Submission:
    return _answer(good[FIRST.query_id][0])(good)


def _cut_short(good: Submission) -> Submission:
    return {**good, FIRST.query_id: good[FIRST.query_id][:-1]}


def _indented(good: Submission) -> bytes:
    return json.dumps(good, indent=40_000).encode()


def _key_twice(good: Submission) -> bytes:
    text = compact_json(good)
    return f'{text[:-1]},"{FIRST.query_id}":{compact_json(good[FIRST.query_id])}}}'.encode()


FORM: list[tuple[Callable[[Submission], Any], str, str]] = [
    (lambda _: b"<html>404</html>", "not_json", "line 1 column 1"),
    (lambda _: b"\xff\xfe{}", "not_json", "utf-8"),
    (lambda _: b"[" * 100_000, "not_json", "recursion"),
    (lambda _: b'{"1":' + b"9" * 5000 + b"}", "not_json", "digits"),
    (lambda good: [good], "not_an_object", "list"),
    (_key_twice, "repeated_key", FIRST.query_id),
    (_without("version"), "version", "missing"),
    (_with("version", "rc1"), "version", '"rc1"'),
    (_without("metric"), "metric", "missing"),
    (_with("metric", "Recall@50"), "metric", '"Recall@50"'),
    (_with("metric", ["recall"]), "metric", '["recall"]'),
    (_with(FIRST.query_id, "test1-1-0-img1"), "not_a_list", "test1-1-0-img1"),
    (_with(FIRST.query_id, None), "not_a_list", "null"),
    (_cut_short, "wrong_length", "49 instead of 50"),
    (_answer(7), "not_a_string", "7"),
    (_answer(["test1-1-0-img1"]), "not_a_string", '["test1-1-0-img1"]'),
    (_repeat_first, "duplicate", "2 times"),
    (_indented, "too_large", "bytes"),
]
ANNOTATED: list[tuple[Callable[[Submission], Any], str, str]] = [
    (_without(FIRST.query_id), "missing_query", FIRST.query_id),
    (lambda good: {**good, "99": good[FIRST.query_id]}, "unknown_query", '"99"'),
    (_answer(FIRST.reference_id), "reference", FIRST.reference_id),
    (_answer("dev-0-0-img0"), "not_in_gallery", "dev-0-0-img0"),
]


@pytest.mark.parametrize(("spoil", "kind", "example"), FORM + ANNOTATED)
def test_each_fault_of_a_cirr_file_has_its_own_name(
    spoil: Callable[[Submission], Any], kind: str, example: str
) -> None:
    found = cirr_faults(spoil(cirr_submission("recall")))
    assert list(found) == [kind]
    assert found[kind].count == 1
    assert example in found[kind].examples[0]
    assert found[kind].what == EXPLANATIONS[kind]


@pytest.mark.parametrize(("spoil", "kind", "example"), FORM)
def test_faults_of_form_are_found_without_annotations(
    spoil: Callable[[Submission], Any], kind: str, example: str
) -> None:
    found = cirr_faults(spoil(cirr_submission("recall")), with_annotations=False)
    assert list(found) == [kind]
    assert example in found[kind].examples[0]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("test1-50-0-img1", "not_in_subset"),
        (FIRST.reference_id, "reference"),
        ("test1-60-0-img1", "not_in_gallery"),
    ],
)
def test_a_subset_file_holds_members_alone(answer: str, kind: str) -> None:
    assert list(cirr_faults(_answer(answer)(cirr_submission("recall_subset")))) == [kind]


def test_the_lists_of_a_file_without_metric_are_measured_by_their_own_length() -> None:
    assert list(cirr_faults(_without("metric")(cirr_submission("recall_subset")))) == ["metric"]


def test_without_annotations_pair_ids_are_counted_and_must_be_numbers() -> None:
    found = cirr_faults({**cirr_submission("recall"), "query 5": []}, with_annotations=False)
    assert list(found) == ["unknown_query", "wrong_count", "wrong_length"]
    assert found["wrong_count"].examples == ("5 instead of 4",)


@pytest.mark.parametrize("with_annotations", [True, False])
@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda _: b"", "not_json"),
        (list, "not_an_object"),
        (_without("2"), "missing_query"),
        (_with("04", list(range(50))), "unknown_query"),
        (_with("2", 5), "not_a_list"),
        (_with("2", [100 + 7 * n for n in range(49)]), "wrong_length"),
        (_with("2", [100 + 7 * n for n in range(49)] + ["443"]), "not_an_integer"),
        (_with("2", [100 + 7 * n for n in range(49)] + [443.0]), "not_an_integer"),
        (_with("2", [100 + 7 * n for n in range(49)] + [True]), "not_an_integer"),
        (_with("2", [100 + 7 * n for n in range(49)] + [100]), "duplicate"),
    ],
)
def test_each_fault_of_a_circo_file_has_its_own_name(
    spoil: Callable[[Submission], Any], kind: str, with_annotations: bool
) -> None:
    assert list(circo_faults(spoil(circo_submission()), with_annotations=with_annotations)) == [
        kind
    ]


def test_a_circo_answer_is_of_the_gallery_and_may_be_the_reference() -> None:
    good = circo_submission()
    assert 100 in good["0"]  # the reference of query 0
    spoilt = {**good, "0": [*good["0"][:-1], 101]}
    assert list(circo_faults(spoilt)) == ["not_in_gallery"]
    assert circo_faults(spoilt, with_annotations=False) == {}


def test_all_faults_are_told_at_once_counted_with_the_first_examples() -> None:
    good = cirr_submission("recall")
    spoilt = {
        key: [value[0], *value[:-1]] if isinstance(value, list) else value
        for key, value in good.items()
    }
    del spoilt["version"]
    spoilt["extra"] = []
    found = cirr_faults(spoilt)
    assert list(found) == ["version", "unknown_query", "duplicate", "wrong_length"]
    assert found["duplicate"].count == 4
    assert len(found["duplicate"].examples) == 3
    assert str(found["duplicate"]).endswith("; and 1 more")
    assert "(4)" in str(found["duplicate"])


def test_what_a_file_says_reaches_the_terminal_as_short_ascii() -> None:
    hostile = "\x1b[31m\u202e\ud800" + "x" * 10_000
    told = shown(hostile)
    assert told.isascii()
    assert told.isprintable()
    assert len(told) <= EXAMPLE_WIDTH + 3
    faults = Faults()
    faults.add("duplicate", told)
    assert str(faults.grouped()[0]).isprintable()
