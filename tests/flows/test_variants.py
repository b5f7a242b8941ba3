"""A stage 2 that reads no z_t: trained, and in a whole run beside another encoder."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from cir_core.checkpoints.grafting import grafted
from cir_core.layers.preprocess import Fit
from cir_core.layers.wordpiece import Tokenizer
from cir_core.ports import FusedQueries, Load
from cir_core.rerankers.dual.model import Stage2Model
from cir_core.rerankers.dual.variant import Variant
from cir_core.rerankers.plain import ReferenceScorer
from cir_core.types import Precisions
from flows.plan import make_plan
from storage.models.folders import write_checkpoint
from tasks.feed.image_tokens import Pictures
from tasks.feed.pictures import distinct_pictures
from tasks.feed.references import KeptReferences
from tasks.feed.token_cache import TokenCache
from tasks.machine import Machine
from tasks.models.opening import open_stage1, open_stage2
from tasks.planning import timing
from tasks.planning.scoring_cost import Scoring, measure
from tasks.stages.tokens import tokens_of
from tests.support.small_benchmarks import VOCABULARY, Bench, rounding_of
from tests.support.tiny_models import fill
from tests.support.tiny_towers import tiny_siglip
from tests.support.workshop import small_workshop


def write_variant(bench: Bench, folder: Path, variant: Variant, fit: Fit = "pad") -> Stage2Model:
    """Of the benchmark's sizes, every weight another one: its ViT is not stage 1's."""
    config = open_stage2(bench.pair.stage2).config
    vision = config.vision.model_copy(update={"fit": fit})
    config = config.model_copy(update={"variant": variant, "vision": vision})
    model = fill(Stage2Model(config), seed=7)
    write_checkpoint(folder, model.config.model_dump(), model.state_dict())
    return model


def test_every_candidate_has_the_score_of_its_text_and_both_pictures(
    fiq: Bench, tmp_path: Path
) -> None:
    """And ``--tokens recompute`` does not keep it from keeping what it reads."""
    variant = Variant(encoder="single", reference="image")
    model = write_variant(fiq, tmp_path / "model", variant)
    settings = fiq.settings(tmp_path / "store", stage2=tmp_path / "model", tokens="recompute")
    planned = make_plan(settings, started=0.0)
    assert "tokens" in [stage.stage for stage in planned.stages]
    assert planned.speeds.image_again > 0, "stage 2 sees pictures by an encoder of its own"
    run = fiq.run(tmp_path / "store", stage2=tmp_path / "model", tokens="recompute")
    assert "rerank" in run.made
    ingested = run.evaluated.ingested
    pictures = Pictures(ingested, fiq.root, Machine())
    kept = TokenCache(tokens_of(ingested, tmp_path / "model", fiq.root, "fp32").made)
    queries = {row["query_id"]: row for row in ingested.read("queries").to_pylist()}
    distinct = distinct_pictures(ingested.read("images"))
    (to_keep,) = (one.effort for one in planned.stages if one.stage == "tokens")
    assert to_keep.images == 2 * len(distinct), "those of both encoders, which take pictures alike"
    assert to_keep.bytes == 4 * to_keep.images * model.config.image_width
    assert len(list((tmp_path / "store" / "artifacts" / "tokens").iterdir())) == 2
    scores = run.evaluated.ranked.scored.read("scores")
    ids = [queries[one] for one in scores["query_id"].to_pylist()]
    tokens = Tokenizer(VOCABULARY)([one["text"] for one in ids])
    references = distinct.of(pa.chunked_array([[one["reference_id"] for one in ids]]))
    asked = FusedQueries.of([], tokens, references=KeptReferences(kept, pictures, references))
    images = kept[torch.from_numpy(distinct.of(scores["image_id"]))]
    each = np.arange(len(ids))
    expected = ReferenceScorer(model, asked).score(images, each, each)
    found = scores["stage2_score"].to_numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=rounding_of(fiq.pair))


def test_pairs_are_counted_as_stage_2_reads_them(
    fiq: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a plan and by what an ablation tells: of empty texts here, whatever stage 1 reads. And of
    its own pictures alone are tokens kept, since stage 1 takes them in another way."""
    monkeypatch.setattr(timing, "SECONDS", 0.001)
    variant = Variant(reference="image", text=False)
    model = write_variant(fiq, tmp_path / "model", variant, fit="squash")
    of_model = {"stage2": tmp_path / "model"}
    stages = make_plan(fiq.settings(tmp_path / "store", **of_model), started=0.0).stages
    to_keep, planned = (
        {stage.stage: stage.effort for stage in stages}[name] for name in ("tokens", "rerank")
    )
    run = fiq.run(tmp_path / "store", **of_model)
    scores = run.evaluated.ranked.scored.read("scores")
    distinct = distinct_pictures(run.evaluated.ingested.read("images"))
    rows = distinct.of(scores["image_id"])
    images, image = np.unique(rows, return_inverse=True)
    texts = len(pc.unique(scores["query_id"]))
    load = Load.of(np.full(len(rows), 2), image, images=len(images))
    flops = model.config.scoring_flops(load) + model.config.beginning_flops(np.full(texts, 2))
    pair = fiq.pair.stage1, tmp_path / "model"
    cost = measure(Scoring(run.evaluated, fiq.root, *pair, Precisions(), Machine()))
    assert (cost.pairs, planned.pairs) == (len(rows), len(rows))
    assert cost.flops_per_pair == pytest.approx(flops / len(rows))
    assert to_keep.images == len(distinct)
    assert len(list((tmp_path / "store" / "artifacts" / "tokens").iterdir())) == 1
    assert planned.flops == pytest.approx(flops, rel=0.05), "who asks of which image is expected"


@pytest.mark.slow
def test_both_stages_are_trained_over_another_models_tower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SigLIP's, below the text encoder of a base; and a recipe names the variant of stage 2."""
    workshop = small_workshop(tmp_path, monkeypatch)
    source = open_stage1(workshop.train("pretrain"))
    tower = tiny_siglip().vision
    made = grafted(tower, source, "base")
    base = tmp_path / "grafted"
    write_checkpoint(base, made.config.model_dump(), made.tensors, dtype=torch.float16)
    stage1 = workshop.train("stage1", base=base)
    assert open_stage1(stage1).encoder.differing(open_stage1(base).encoder) == []
    file = tmp_path / "image.toml"
    file.write_text(
        'preset = "demo"\nmerge_from = 1\n[variant]\nreference = "image"\ntext = false\n'
        "[stage2]\nepochs = 1\n"
    )
    trained = open_stage2(workshop.train("stage2", recipe=str(file), base=base, stage1=stage1))
    assert trained.config.variant == Variant(reference="image", text=False)
    assert trained.config.merge_from == 1
    assert trained.vision.config == tower.config
