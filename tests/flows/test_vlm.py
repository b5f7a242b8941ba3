"""A vision-language model from its Hugging Face folder to a run's scores."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cir_core.errors import CheckpointRefused, PreflightError, UsageError
from cir_core.ports import FusedQueries
from cir_core.rerankers.vlm.config import VlmConfig
from cir_core.rerankers.vlm.model import VlmModel
from cir_core.rerankers.vlm.reranker import VlmReranker
from flows.plan import make_plan
from storage.models.folders import model_sha256, read_config
from tasks.doctor.environment import check_models
from tasks.feed.image_tokens import Pictures
from tasks.feed.references import KeptReferences
from tasks.feed.token_cache import TokenCache
from tasks.machine import Machine
from tasks.models.convert import convert, convert_back
from tasks.models.opening import open_reranker, read_reranker_config
from tasks.stages.tokens import tokens_of
from tests.support.small_benchmarks import Bench
from tests.support.tiny_vlm import TEMPLATE, write_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In several shards, as publishers of several GB write them."""
    folder = tmp_path_factory.mktemp("hf") / "Qwen3-VL-Reranker"
    write_folder(folder, "qwen3_vl", shard="100KB")
    return folder


@pytest.fixture(scope="module")
def model(source: Path) -> Path:
    out = source.parent / "model"
    assert convert(source, out).kind == "vlm"
    return out


def test_every_candidate_is_asked_of_with_both_pictures_and_its_text(
    fiq: Bench,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("tasks.planning.timing.SECONDS", 0.02)
    planned = make_plan(fiq.settings(tmp_path / "store", stage2=model), started=0.0)
    (rerank,) = (stage for stage in planned.stages if stage.stage == "rerank")
    assert rerank.effort.flops > 0
    assert rerank.effort.seconds > 0
    run = fiq.run(tmp_path / "store", stage2=model)
    assert run.report.exists()
    ingested = run.evaluated.ingested
    pictures = Pictures(ingested, fiq.root, Machine())
    kept = TokenCache(tokens_of(ingested, model, fiq.root, "fp32").made)
    scores = run.evaluated.ranked.scored.read("scores").slice(0, 12)
    rows = {row["query_id"]: row for row in ingested.read("queries").to_pylist()}
    asked = [rows[one] for one in scores["query_id"].to_pylist()]
    reranker = open_reranker(model)
    token_ids = reranker.config.tokenizer()([one["text"] for one in asked])
    of_query = np.array([_row(pictures, one["reference_id"]) for one in asked])
    queries = FusedQueries.of([], token_ids, references=KeptReferences(kept, pictures, of_query))
    cpu = torch.device("cpu")
    scorer = reranker.open(queries, device=cpu, memory=None, precision="fp32")
    images = [_row(pictures, one) for one in scores["image_id"].to_pylist()]
    prepared = scorer.prepare(kept[torch.tensor(images)])
    each = np.arange(len(asked))
    found = scorer.score(prepared, each, each)
    np.testing.assert_allclose(scores["stage2_score"].to_numpy(), found, rtol=0, atol=1e-5)
    with caplog.at_level(logging.INFO, logger="tasks"):
        fiq.run(tmp_path / "store", stage2=model, k=4, until="rerank")
    assert "56 of 56 scores are known from earlier runs" in caplog.text


def _row(pictures: Pictures, image: str) -> int:
    import pyarrow as pa

    return int(pictures.distinct.of(pa.array([image]))[0])


def test_weights_are_linked_and_the_prompt_is_recorded(source: Path, model: Path) -> None:
    shards = sorted(source.glob("model-*.safetensors"))
    assert len(shards) > 1
    assert all((model / one.name).samefile(one) for one in shards)
    written = json.loads((model / "config.json").read_text())
    assert written["form"]["yes"] == "yes"
    assert written["prompt"]["head"].count(written["prompt"]["image"]) == 1
    assert written["pixels"]["most"] == 24 * 64, "the publisher's limits"
    assert (model / "chat_template.jinja").read_text() == TEMPLATE
    name = model_sha256(model)
    convert(source, model)
    assert model_sha256(model) == name, "converted again, it is the same model"


def test_the_doctor_finds_that_it_may_follow_any_stage_1(fiq: Bench, model: Path) -> None:
    findings = {one.check: one for one in check_models(fiq.pair.stage1, model)}
    assert findings["pair"].state == "ok"
    assert findings["stage2"].found == "vlm, 256 to 1,536 pixels"


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer.json"])
def test_a_template_that_changed_is_refused(name: str, source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "model")
    file = tmp_path / "model" / name
    file.write_text(file.read_text() + " ")
    with pytest.raises(CheckpointRefused, match="has changed since it was converted") as refused:
        read_reranker_config(tmp_path / "model")
    assert "convert the model again" in refused.value.remedy


def test_a_prompt_that_is_not_the_templates_is_refused(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text().replace("Judge whether", "Tell whether"))
    with pytest.raises(CheckpointRefused, match="prompt is not the one that was converted"):
        open_reranker(tmp_path / "model")


def test_pixel_limits_may_be_set_and_make_another_model(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "model")
    before, config = model_sha256(tmp_path / "model"), tmp_path / "model" / "config.json"
    written = json.loads(config.read_text())
    written["pixels"]["most"] = 8 * 64
    config.write_text(json.dumps(written))
    assert model_sha256(tmp_path / "model") != before
    assert open_reranker(tmp_path / "model").encoder.shape[0] < open_shape(source, tmp_path)
    with pytest.raises(UsageError, match="holds something else"):
        convert(source, tmp_path / "model")


def open_shape(source: Path, tmp_path: Path) -> int:
    convert(source, tmp_path / "other")
    return open_reranker(tmp_path / "other").encoder.shape[0]


def test_another_flipped_weight_is_noticed(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "model")
    shard = sorted((tmp_path / "model").glob("model-*.safetensors"))[0]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.unlink()  # the source's stays as it is
    shard.write_bytes(content)
    with pytest.raises(CheckpointRefused, match="weights are damaged"):
        open_reranker(tmp_path / "model")


def _without(folder: Path, name: str, **changes: Any) -> None:
    written = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(written | changes))


def _no_answers(folder: Path) -> None:
    tokens = json.loads((folder / "tokenizer.json").read_text())
    tokens["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(tokens))


def _fewer_layers(folder: Path) -> None:
    written = json.loads((folder / "config.json").read_text())
    written["text_config"]["num_hidden_layers"] = 2
    (folder / "config.json").write_text(json.dumps(written))


FAULTS: dict[str, Callable[[Path], object]] = {
    "no chat template": lambda one: (one / "chat_template.jinja").unlink(),
    "not show two pictures": lambda one: (one / "chat_template.jinja").write_text(
        TEMPLATE.replace("<|image_pad|>", "")
    ),
    "cannot be filled": lambda one: (one / "chat_template.jinja").write_text("{% for %}"),
    "not a single token": _no_answers,
    "cuts patches": lambda one: _without(one, "preprocessor_config.json", patch_size=14),
    "missing": lambda one: sorted(one.glob("model-*.safetensors"))[0].unlink(),
    "cannot be read": lambda one: (one / "tokenizer.json").write_text("{"),
    "does not fit the model": _fewer_layers,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_cannot_be_asked_is_refused(fault: str, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    for file in source.iterdir():
        if file.suffix in (".json", ".jinja"):
            (folder / file.name).write_bytes(file.read_bytes())
        else:
            (folder / file.name).hardlink_to(file)
    FAULTS[fault](folder)
    with pytest.raises(CheckpointRefused) as refused:
        convert(folder, tmp_path / "model")
    assert fault in str(refused.value)
    assert not (tmp_path / "model").exists()


def test_what_does_not_belong_together_is_refused(
    source: Path, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="stay as they are"):
        convert(source, tmp_path / "half", half=True)
    with pytest.raises(CheckpointRefused, match=r"no published \.pt format"):
        convert_back(model, tmp_path / "back.pt")


def test_without_transformers_the_remedy_is_the_extra(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr("cir_core.rerankers.vlm.extra.import_module", missing)
    assert isinstance(read_reranker_config(model), VlmConfig), "a config is read without"
    with pytest.raises(PreflightError) as refused:
        open_reranker(model)
    assert "cir-pipeline[vlm]" in refused.value.remedy


def test_what_is_opened_is_what_was_published(source: Path, model: Path) -> None:
    from transformers import AutoModelForImageTextToText

    net = AutoModelForImageTextToText.from_pretrained(source, dtype=torch.float32)
    reranker = open_reranker(model)
    assert isinstance(reranker, VlmReranker)
    ours: VlmModel = reranker.model
    theirs = net.state_dict()
    assert all(torch.equal(one, theirs[name]) for name, one in ours.net.state_dict().items())
    assert read_config(model)["weights"]
