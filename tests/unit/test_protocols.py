"""The protocols are data: complete, named once, and true to what they are published for."""

from itertools import chain, product

import pytest

from cir_core import protocols
from cir_core.datasets.registry import DATASETS, Dataset
from cir_core.errors import UsageError
from cir_core.protocols import PROTOCOLS, Protocol
from cir_core.published import PUBLISHED


def test_every_protocol_belongs_to_a_dataset_and_has_a_name_of_its_own() -> None:
    listed = [protocol for dataset in DATASETS.values() for protocol in dataset.protocols]
    assert {protocol.name for protocol in listed} == PROTOCOLS.keys()
    assert len(listed) == len(PROTOCOLS)
    for dataset in DATASETS.values():
        assert {protocol.dataset for protocol in dataset.protocols} == {dataset.name}
        assert all(protocol.source for protocol in dataset.protocols)


def test_nobody_publishes_what_nobody_can_have_measured() -> None:
    assert all(one.source.startswith("nobody") for one in protocols.DEMO)
    sources = {one.name: one.source for one in protocols.FASHION_IQ}
    assert sources["fiq-original-kept"].startswith("arXiv 2305.16304")
    assert sources["fiq-original-kept-both-orders"] == "SEARLE, LinCIR"
    assert sources["fiq-original-kept-raw"] == "nobody known"


@pytest.mark.parametrize("name", ["demo", "fiq"])
def test_fashion_iq_has_all_combinations_and_the_papers_comes_first(name: str) -> None:
    own = DATASETS[name].protocols
    combined = {(one.gallery, one.removes_reference, one.captions) for one in own}
    assert combined == set(
        product(
            ("original", "union"),
            (False, True),
            ("published", "reversed", "raw", "both_orders"),
        )
    )
    assert len(own) == len(combined)
    first = DATASETS[name].protocol(None)
    assert (first.gallery, first.removes_reference, first.captions) == (
        "original",
        False,
        "published",
    )
    assert first.name == f"{name}-original-kept"


def test_cirr_removes_the_reference_under_both_subset_definitions() -> None:
    assert [protocol.subset for protocol in protocols.CIRR] == ["scored", "main_order"]
    for protocol in protocols.CIRR:
        assert protocol.removes_reference
        assert (protocol.ks, protocol.subset_ks) == ((1, 5, 10, 50), (1, 2, 3))


def test_circo_keeps_the_reference_and_comes_with_and_without_the_shared_concept() -> None:
    assert [protocol.shared_concept for protocol in protocols.CIRCO] == [False, True]
    assert all(one.map_ks == (5, 10, 25, 50) for one in protocols.CIRCO)
    assert not any(one.removes_reference for one in protocols.CIRCO)


def test_an_unknown_protocol_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no protocol 'cirr-kept'") as caught:
        DATASETS["cirr"].protocol("cirr-kept")
    assert "cirr-removed-subset-main-order" in caught.value.remedy


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=list(DATASETS))
def test_published_values_are_percentages_of_what_the_protocol_measures(dataset: Dataset) -> None:
    for protocol in dataset.protocols:
        categories = {*dataset.adapter.categories, "average"}
        measured = _measured(protocol)
        for published in PUBLISHED.get(protocol.name, ()):
            assert published.label
            assert published.source
            for (category, metric, k), value in published.values.items():
                assert category in categories
                assert (metric, k) in measured
                assert 1 < value <= 100  # a fraction would be below


def _measured(protocol: Protocol) -> set[tuple[str, int]]:
    measured = {("recall", k) for k in protocol.ks}
    measured |= {("recall_subset", k) for k in protocol.subset_ks}
    measured |= {("map", k) for k in protocol.map_ks}
    return measured | ({("cirr_average", 0)} if protocol.subset_ks else set())


def test_published_numbers_stand_beside_the_same_queries_alone() -> None:
    assert PUBLISHED.keys() < PROTOCOLS.keys()
    cirr, fiq = PROTOCOLS["cirr-removed-subset-scored"], PROTOCOLS["fiq-original-kept"]
    assert {one.split for one in cirr.published("val")} == {"val"}
    assert {one.split for one in cirr.published("test")} == {"test"}
    assert [one.label for one in fiq.published("val")] == [
        "Candidate Set Re-ranking, K=100 (val)",
        "Candidate Set Re-ranking, K=200 (val)",
        "SPRC (val)",
    ]
    assert fiq.published("selection") == ()
    (crosspath, _) = PROTOCOLS["fiq-union-removed"].published("val")
    assert crosspath.label == "CrossPath (val; caption rule not stated)"


def test_published_averages_are_macro_averages() -> None:
    """Several papers' printed averages are not the mean of what they print."""
    checked = 0
    for published in chain.from_iterable(PUBLISHED.values()):
        for (category, metric, k), value in published.values.items():
            of = [
                one
                for (name, *measure), one in published.values.items()
                if name != "average" and measure == [metric, k]
            ]
            if category == "average" and of:
                assert value == pytest.approx(sum(of) / len(of), abs=0.006)
                checked += 1
    assert checked == 4
