"""An exit's head is the least squares solution, and its scores are of the plain model's states."""

import numpy as np
import pytest
import torch

from cir_core.errors import UsageError
from cir_core.ports import FusedQueries
from cir_core.rerankers.dual.engine import RerankEngine
from cir_core.rerankers.dual.exits import LeastSquares, LinearHead, first_layers
from tests.support.plain_reranker import plain_states
from tests.support.tiny_models import TEXT, VISION, tiny_stage2
from tests.support.tolerances import rounding, text_sums

CPU = torch.device("cpu")


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_a_head_solves_the_normal_equations(ridge: float) -> None:
    """Of states, cosines and ones, of which the ridge leaves the last alone; in any blocks."""
    rng = np.random.default_rng(0)
    states, cosines, scores = rng.normal(2, 3, (40, 3)), rng.random(40), rng.normal(5, 1, 40)
    fit = LeastSquares(3).add(states[:15], cosines[:15], scores[:15])
    found = fit.add(states[15:], cosines[15:], scores[15:]).head(ridge)
    held = len(states) * ridge * states.var(axis=0).mean() * np.diag([1.0, 1, 1, 1, 0])
    columns = np.c_[states, cosines, np.ones(len(states))]
    expected = np.linalg.solve(columns.T @ columns + held, columns.T @ scores)
    np.testing.assert_allclose([*found.weight, found.prior, found.bias], expected, rtol=1e-9)


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize(("layers", "merge_from"), [(1, 0), (1, 3), (2, 1)])
def test_an_exits_scores_are_of_the_states_after_its_layers(
    layers: int, merge_from: int, grouped: bool
) -> None:
    rng, model = np.random.default_rng(3), tiny_stage2(merge_from=merge_from)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    z_t = [rng.standard_normal((n, TEXT.width)).astype(np.float32) for n in (2, 5, 3)]
    token_ids = [rng.integers(0, TEXT.vocabulary_size, len(one)).tolist() for one in z_t]
    images = torch.from_numpy(rng.standard_normal((2, VISION.tokens, VISION.width), np.float32))
    query, image = np.divmod(np.arange(6), 2)
    states = np.stack(
        [
            plain_states(
                model.state_dict(),
                heads=TEXT.heads,
                layers=layers,
                z_t=torch.from_numpy(z_t[asked]),
                token_ids=token_ids[asked],
                image_tokens=images[seen],
            )
            for asked, seen in zip(query, image, strict=True)
        ]
    )
    head = LinearHead(rng.standard_normal(2 * TEXT.width), 0.5, prior=-2.0)
    queries, tolerance = (
        FusedQueries.of(z_t, token_ids),
        rounding(text_sums(TEXT, VISION, tokens=5), magnitude=3),
    )
    short = first_layers(model, layers, head)
    assert short.config.prior == head.prior
    engine = RerankEngine(short, queries, device=CPU, grouped=grouped)
    found = engine.states(images, query, image)
    np.testing.assert_allclose(found, states, rtol=0, atol=tolerance)
    scores = engine.score(images, query, image)
    size = np.abs(head.weight).sum()
    np.testing.assert_allclose(
        scores, states @ head.weight + head.bias, rtol=0, atol=size * tolerance
    )
    assert np.ptp(scores) > 10 * size * tolerance, "else nothing is told apart"
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_what_is_no_exit_is_refused() -> None:
    for layers in (0, 3):
        with pytest.raises(UsageError, match=f"no exit after layer {layers}") as caught:
            first_layers(tiny_stage2(), layers)
        assert caught.value.remedy == "pass 1 to 2"
    with pytest.raises(UsageError, match="leave out the exit"):
        first_layers(tiny_stage2(layers=1), 1)
    for states in (np.empty((0, 3)), np.ones((5, 3))):
        with pytest.raises(UsageError, match="nothing to fit an exit on"):
            LeastSquares(3).add(states, *np.zeros((2, len(states)))).head()
