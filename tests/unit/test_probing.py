"""Probes: what a linear map reads, ranks of what is no member, texts without a picture."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from cir_core.metrics.probing import LEAST_GROUPS, read_linearly
from cir_core.ports import ReadsTexts
from cir_core.retrievers.weighted import WeightedSum
from cir_core.search.candidates import NONE_REMOVED
from cir_core.search.ranks import places_of
from cir_core.search.scores import Gallery, pair_scores
from tasks.stages.probing import text_vectors
from tasks.stages.questions import Questions
from tests.support.tiny_models import tiny_stage1
from tests.support.tiny_towers import tiny_clip, tiny_inversion, tiny_siglip

RNG = np.random.default_rng(3)


# --- a linear map


def test_a_linear_map_is_found_again() -> None:
    """Of noiseless features, few more than half as many queries, in groups of three."""
    features = RNG.normal(size=(120, 10))
    true = RNG.normal(size=(10, 4))
    wanted = features @ true + 5
    read = read_linearly(features, wanted, np.arange(120) // 3)
    assert read is not None
    assert read == pytest.approx(wanted, abs=1e-3)


def test_nothing_is_read_that_other_groups_do_not_teach() -> None:
    """Features that name their group tell nothing of another's; a map that had seen the same group
    would have its numbers exactly."""
    group = np.arange(160) % 40
    of_group = RNG.normal(size=(40, 6))
    read = read_linearly(np.eye(40)[group], of_group[group], group)
    assert read is not None
    assert np.corrcoef(read.ravel(), of_group[group].ravel())[0, 1] < 0.1


def test_a_query_is_read_by_a_map_that_was_fitted_on_others() -> None:
    """Its own numbers do not change what is read of it, nor does that of its whole half."""
    features, group = RNG.normal(size=(60, 5)), np.arange(60) // 2
    wanted = RNG.normal(size=(60, 2))
    before = read_linearly(features, wanted, group)
    changed = wanted.copy()
    changed[0] += 100
    after = read_linearly(features, changed, group)
    assert before is not None
    assert after is not None
    moved = np.abs(after - before).max(axis=1) > 1e-9
    assert not moved[group == 0].any()
    assert moved.sum() == 30, "the other half"


def test_more_features_than_queries_are_read_still() -> None:
    features = RNG.normal(size=(50, 200))
    read = read_linearly(features, features[:, :3], np.arange(50))
    assert read is not None
    assert np.isfinite(read).all()


def test_too_few_groups_teach_nothing() -> None:
    few = np.arange(60) % (LEAST_GROUPS - 1)
    assert read_linearly(np.ones((60, 2)), np.ones((60, 2)), few) is None


# --- ranks


def test_places_are_those_of_the_whole_order() -> None:
    """Of quantised vectors, which tie; members, what comes to the end, and a removed row."""
    vectors = np.round(RNG.normal(size=(30, 3))).astype(np.float32)
    queries = np.round(RNG.normal(size=(8, 3))).astype(np.float32)
    others = np.round(RNG.normal(size=(8, 3))).astype(np.float32)
    rows = np.array([0, 5, 29, 30, 30, 30, 7, 7])
    removed = np.array([NONE_REMOVED, 1, 2, 3, NONE_REMOVED, 4, 0, NONE_REMOVED])
    each = np.arange(8)
    mine = np.where((rows < 30)[:, None], vectors[np.minimum(rows, 29)], others)
    own = (queries * mine).sum(axis=1)
    found = places_of(queries, Gallery(vectors), scores=own, rows=rows, removed=removed)
    for query in each:
        scores = vectors @ queries[query]
        before = [
            image
            for image in range(30)
            if image != removed[query]
            and (
                scores[image] > own[query] or (scores[image] == own[query] and image < rows[query])
            )
        ]
        assert found[query] == 1 + len(before)
    assert pair_scores(queries, others, each, each)[4] == own[4]


# --- texts alone


def test_a_text_alone_is_embedded_whatever_it_is_padded_to() -> None:
    model = tiny_stage1().double().eval()
    assert isinstance(model, ReadsTexts)
    short, long = [30, 5, 6, 31], [30, 7, 8, 9, 10, 11, 31]
    with torch.inference_mode():
        together, alone = model.embed_texts([short, long]), model.embed_texts([short])
    assert together[0].tolist() == pytest.approx(alone[0].tolist(), abs=1e-12)
    assert together.norm(dim=-1).tolist() == pytest.approx([1, 1])


def test_a_text_alone_looks_at_no_picture() -> None:
    """As the encoder without cross-attention has it, worked out beside it."""
    model = tiny_stage1().double().eval()
    ids = [30, 5, 6, 31]
    with torch.inference_mode():
        states = model.text(torch.tensor([ids]), torch.tensor([len(ids)]), None)
        expected = functional.normalize(model.text_projection(states[:, 0]), dim=-1)
        assert torch.equal(model.embed_texts([ids]), expected)
        for layer in model.text.layers:
            layer.cross_attention.query.weight.fill_(7)
        assert torch.equal(model.embed_texts([ids]), expected)


@pytest.mark.parametrize("model", [tiny_clip(), tiny_siglip()], ids=["clip", "siglip"])
def test_a_text_alone_is_the_texts_part_of_a_query(model: WeightedSum) -> None:
    """All of a query, where the text weighs everything."""
    model = model.double().eval()
    ids = [[1, 2, 3], [4, 5, 6, 7]]
    states = torch.zeros(2, *model.encoder.shape, dtype=torch.float64)
    with torch.inference_mode():
        whole = model.weighed(1.0).ask(ids, states).embeddings
        assert torch.allclose(model.embed_texts(ids), whole, atol=1e-12)


def test_of_nothing_that_is_asked_there_is_no_text() -> None:
    """As where no reference could be used."""
    nothing = Questions(np.empty(0, dtype=np.int64), [], [], [], {})
    assert text_vectors(tiny_clip(), nothing, 4) is None


def test_a_textual_inversion_has_no_text_alone() -> None:
    assert not isinstance(tiny_inversion(), ReadsTexts)
