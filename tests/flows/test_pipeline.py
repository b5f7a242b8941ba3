"""Whole runs of both benchmarks, in process, against plain programs that share none of its code.

What is asked of a run: the published protocols, every candidate scored, numbers that three ways of
counting agree on, work only where something changed, and the same result however it is cut.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from cir_core.errors import CheckpointRefused, PreflightError, ProblemsFound, UsageError
from cir_core.families import load_model, parse_config
from cir_core.layers.preprocess import prepare
from cir_core.layers.vision import normalise
from cir_core.layers.wordpiece import Tokenizer
from storage.catalog import query
from storage.models.folders import read_config, read_tensors, write_checkpoint
from tests.support.plain_hashes import plain_model_sha256
from tests.support.small_benchmarks import (
    CIRR_IMAGES,
    CIRR_QUERIES,
    FIQ_IMAGES,
    FIQ_QUERIES,
    VOCABULARY,
    Bench,
    Finished,
    K,
    Pair,
    rounding_of,
)
from tests.support.tolerances import rounding

ALL = (
    "ingest", "encode", "fuse", "retrieve", "rerank", "rank", "evaluate", "publish", "report",
)  # fmt: skip
RESULT = ("rank", "evaluate", "publish", "report")


@pytest.fixture(params=["fiq_run", "cirr_run"])
def ended(request: pytest.FixtureRequest) -> Finished:
    """Both benchmarks in turn."""
    run: Finished = request.getfixturevalue(request.param)
    return run


@pytest.fixture
def copied(fiq_run: Finished, tmp_path: Path) -> Finished:
    """Fashion-IQ with its own copy of data and store, to be changed."""
    root, store = tmp_path / "data", tmp_path / "store"
    shutil.copytree(fiq_run.bench.root, root)
    shutil.copytree(fiq_run.store, store)
    bench = Bench("fiq", root, fiq_run.bench.pair, fiq_run.bench.categories)
    return Finished(bench, store, fiq_run.run)


def rows(store: Path, sql: str) -> list[dict[str, Any]]:
    columns, found = query(store / "cir.duckdb", sql)
    return [dict(zip(columns, row, strict=True)) for row in found]


def rankings(store: Path, run_id: str) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Each query's and pool's candidates in their final order."""
    grouped: dict[tuple[str, str], list[dict[str, Any]]] = {}
    sql = f"SELECT * FROM rankings WHERE run_id = '{run_id}' ORDER BY query_id, pool, rank"
    for row in rows(store, sql):
        grouped.setdefault((row["query_id"], row["pool"]), []).append(row)
    return grouped


def queries(ended: Finished) -> dict[str, dict[str, Any]]:
    sql = f"SELECT * FROM queries WHERE run_id = '{ended.run.run_id}'"
    return {row["query_id"]: row for row in rows(ended.store, sql)}


# --- the protocols


def test_a_first_run_makes_everything_and_finds_no_problem(ended: Finished) -> None:
    assert ended.run.made == ALL
    assert ended.run.problems == 0
    assert ended.run.catalog.is_file()
    assert ended.run.report.is_file()
    assert ended.run.evaluated.fingerprint.startswith(ended.run.run_id)


def test_fashion_iq_asks_every_query_and_keeps_references(fiq_run: Finished) -> None:
    asked, ranked = queries(fiq_run), rankings(fiq_run.store, fiq_run.run.run_id)
    assert len(asked) == 2 * FIQ_QUERIES
    assert set(ranked) == {(name, "gallery") for name in asked}
    assert all(len(candidates) == K for candidates in ranked.values())
    own = [asked[name]["reference_id"] in _images(ranked[name, "gallery"]) for name in asked]
    assert any(own)


def test_cirr_removes_references_from_both_pools(cirr_run: Finished) -> None:
    asked, ranked = queries(cirr_run), rankings(cirr_run.store, cirr_run.run.run_id)
    assert len(asked) == CIRR_QUERIES
    assert set(ranked) == {(name, pool) for name in asked for pool in ("gallery", "subset")}
    for (name, pool), candidates in ranked.items():
        assert len(candidates) == (K if pool == "gallery" else 5)
        assert asked[name]["reference_id"] not in _images(candidates)
        if pool == "subset":
            assert set(_images(candidates)) == set(asked[name]["subset"])


def test_galleries_are_those_of_the_split_files(ended: Finished) -> None:
    sql = f"""SELECT category, list(image_id ORDER BY position) AS images FROM gallery
              WHERE run_id = '{ended.run.run_id}' GROUP BY ALL"""
    found = {row["category"]: row["images"] for row in rows(ended.store, sql)}
    root = ended.bench.root
    if ended.bench.dataset == "cirr":
        split = json.loads((root / "cirr/image_splits/split.rc2.val.json").read_text())
        assert found == {"cirr": list(split)}
    else:
        assert found == {
            name: json.loads((root / f"image_splits/split.{name}.val.json").read_text())
            for name in ended.bench.categories
        }


def test_every_candidate_is_scored_though_the_target_is_not_among_them(ended: Finished) -> None:
    asked, ranked = queries(ended), rankings(ended.store, ended.run.run_id)
    without_target = 0
    for (name, _), candidates in ranked.items():
        without_target += asked[name]["targets"][0] not in _images(candidates)
        assert all(np.isfinite(row["stage2_score"]) for row in candidates)
    assert without_target > 0
    sql = f"""SELECT count(*) AS n FROM candidates WHERE run_id = '{ended.run.run_id}'"""
    assert rows(ended.store, sql)[0]["n"] == sum(map(len, ranked.values()))


def test_ranks_are_permutations_in_the_order_of_their_scores(ended: Finished) -> None:
    for candidates in rankings(ended.store, ended.run.run_id).values():
        wanted = list(range(1, len(candidates) + 1))
        assert [row["rank"] for row in candidates] == wanted
        assert sorted(row["stage1_rank"] for row in candidates) == wanted
        assert len(set(_images(candidates))) == len(candidates)
        second = [row["stage2_score"] for row in candidates]
        assert second == sorted(second, reverse=True)
        by_first = sorted(candidates, key=lambda row: row["stage1_rank"])
        first = [row["stage1_score"] for row in by_first]
        assert first == sorted(first, reverse=True)


def test_no_integrity_view_has_a_row(ended: Finished) -> None:
    views = rows(ended.store, "SELECT view_name FROM duckdb_views() WHERE NOT internal")
    names = [row["view_name"] for row in views if row["view_name"].startswith("integrity_")]
    assert names
    assert all(rows(ended.store, f"SELECT * FROM {name}") == [] for name in names)


def _images(candidates: list[dict[str, Any]]) -> list[str]:
    return [row["image_id"] for row in candidates]


# --- the scores, by a plain loop


class Plain(NamedTuple):
    """Scores of one query at a time, one image at a time."""

    cosine: dict[str, dict[str, float]]
    logit: Callable[[str, str], float]


def plain_scores(ended: Finished) -> Plain:
    """Decode, ViT, stage 1 and stage 2 of single images and queries: nothing is batched, and all is
    in float64."""
    one, two = ended.bench.pair.stage1, ended.bench.pair.stage2
    stage1 = load_model(parse_config(read_config(one), ""), read_tensors(one), "").double()
    stage2 = load_model(parse_config(read_config(two), ""), read_tensors(two), "").double()
    folder = ended.bench.root / ("dev" if ended.bench.dataset == "cirr" else "images")
    tokens, z_t, texts, cosine = {}, {}, {}, {}
    with torch.no_grad():
        for path in sorted(folder.iterdir()):
            with Image.open(path) as image:
                crop = torch.from_numpy(prepare(image.copy(), 64))
            tokens[path.stem] = stage1.vision(normalise(crop[None]).double())
        for name, asked in queries(ended).items():
            ids = torch.tensor(Tokenizer(VOCABULARY)([asked["text"]]))
            length = torch.tensor([ids.shape[1]])
            texts[name] = ids, length
            z_t[name] = stage1.fuse(ids, length, tokens[asked["reference_id"]])
            vector = stage1.embed_queries(z_t[name])
            cosine[name] = {
                image: float(stage1.embed_images(state) @ vector.T)
                for image, state in tokens.items()
            }

    def logit(name: str, image: str) -> float:
        with torch.no_grad():
            return float(stage2(z_t[name], *texts[name], tokens[image]))

    return Plain(cosine, logit)


def test_scores_and_orders_are_those_of_a_plain_loop(ended: Finished) -> None:
    """Up to the rounding of fp32: images whose scores lie closer may stand either way."""
    plain, asked, atol = plain_scores(ended), queries(ended), rounding_of(ended.bench.pair)
    sql = f"SELECT category, image_id FROM gallery WHERE run_id = '{ended.run.run_id}'"
    galleries: dict[str, list[str]] = {}
    for row in rows(ended.store, sql):
        galleries.setdefault(row["category"], []).append(row["image_id"])
    for (name, pool), candidates in rankings(ended.store, ended.run.run_id).items():
        found = plain.cosine[name]
        pooled = asked[name]["subset"] if pool == "subset" else galleries[asked[name]["category"]]
        if ended.bench.dataset == "cirr":
            pooled = [image for image in pooled if image != asked[name]["reference_id"]]
        first = _images(sorted(candidates, key=lambda row: row["stage1_rank"]))
        assert len(set(first)) == len(first) == min(K, len(pooled))
        left = [image for image in pooled if image not in first]
        ordered = [found[image] for image in first] + [
            max([found[one] for one in left], default=-1)
        ]
        assert all(better > worse - atol for better, worse in pairwise(ordered))
        for row in candidates:
            assert row["stage1_score"] == pytest.approx(found[row["image_id"]], abs=atol)
            assert row["stage2_score"] == pytest.approx(
                plain.logit(name, row["image_id"]), abs=atol
            )
        target = asked[name]["targets"][0]
        if pool == "gallery":
            surely = sum(found[image] > found[target] + atol for image in pooled)
            perhaps = sum(found[image] > found[target] - atol for image in pooled)
            assert surely < asked[name]["target_stage1_rank"] <= perhaps


# --- the metrics, three ways


def counted(ended: Finished) -> dict[tuple[str, str, str, int], float]:
    """Recall by (category, stage, pool, k), counted over rankings and queries by hand."""
    asked, ranked = queries(ended), rankings(ended.store, ended.run.run_id)
    hits: dict[tuple[str, str, str, int], list[int]] = {}
    for (name, pool), candidates in ranked.items():
        target, category = asked[name]["targets"][0], asked[name]["category"]
        outside = asked[name]["target_stage1_rank"] if pool == "gallery" else 10**9
        own = next((row for row in candidates if row["image_id"] == target), None)
        places = {
            "stage1": own["stage1_rank"] if own else outside,
            "stage2": own["rank"] if own else outside,
        }
        for k in (1, 5, 10, 50) if pool == "gallery" else (1, 2, 3):
            for stage, place in places.items():
                hits.setdefault((category, stage, pool, k), []).append(int(place <= k))
    found = {key: sum(values) / len(values) for key, values in hits.items()}
    categories = sorted({key[0] for key in found})
    if len(categories) > 1:
        for _, stage, pool, k in list(found):
            values = [found[category, stage, pool, k] for category in categories]
            found["average", stage, pool, k] = sum(values) / len(values)
            pooled = [hit for category in categories for hit in hits[category, stage, pool, k]]
            found["micro", stage, pool, k] = sum(pooled) / len(pooled)
    return found


def test_the_view_the_metrics_and_a_count_by_hand_agree(ended: Finished) -> None:
    run = f"run_id = '{ended.run.run_id}'"
    by_hand = counted(ended)
    view = {
        (row["category"], stage, row["pool"], row["k"]): row[stage]
        for row in rows(ended.store, f"SELECT * FROM recall WHERE {run}")
        for stage in ("stage1", "stage2")
    }
    metrics = {
        (row["category"], row["stage"], row["pool"], row["k"]): row["value"]
        for row in rows(
            ended.store,
            f"""SELECT * FROM metrics WHERE {run} AND stage <> 'gain'
                AND metric IN ('recall', 'recall_subset')""",
        )
    }
    assert any(k > K for *_, k in by_hand)
    assert view.keys() == metrics.keys() == by_hand.keys()
    assert view == pytest.approx(by_hand, abs=1e-12)
    assert metrics == pytest.approx(by_hand, abs=1e-12)


def test_gain_coverage_and_cirrs_average_follow_from_the_recalls(ended: Finished) -> None:
    by_hand, asked = counted(ended), queries(ended)
    sql = f"SELECT * FROM metrics WHERE run_id = '{ended.run.run_id}'"
    seen = set()
    for row in rows(ended.store, sql):
        category, pool, k = row["category"], row["pool"], row["k"]
        if row["metric"] == "mrr":
            continue  # has its own test
        if row["stage"] == "gain":
            wanted = by_hand[category, "stage2", pool, k] - by_hand[category, "stage1", pool, k]
        elif row["metric"] == "cirr_average":
            subset = by_hand[category, row["stage"], "subset", 1]
            wanted = (by_hand[category, row["stage"], "gallery", 5] + subset) / 2
        elif row["metric"] == "coverage":
            assert k == K
            names = {each["category"] for each in asked.values()}
            covered = {
                name: [
                    each["target_stage1_rank"] <= K
                    for each in asked.values()
                    if each["category"] == name
                ]
                for name in names
            }
            shares = [np.mean(covered[name]) for name in names if category in (name, "average")]
            pooled = [each for name in names for each in covered[name]]
            wanted = float(np.mean(pooled if category == "micro" else shares))
        else:
            wanted = by_hand[category, row["stage"], pool, k]
        seen.add(row["metric"])
        assert row["value"] == pytest.approx(wanted, abs=1e-12)
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
    assert seen >= {"recall", "coverage"}
    assert ("cirr_average" in seen) == (ended.bench.dataset == "cirr")


def test_the_mean_reciprocal_rank_is_that_of_its_view(ended: Finished) -> None:
    run = f"run_id = '{ended.run.run_id}'"
    view = {
        (row["category"], stage): row[stage]
        for row in rows(ended.store, f"SELECT * FROM mrr WHERE {run}")
        for stage in ("stage1", "stage2")
    }
    found = rows(ended.store, f"SELECT * FROM metrics WHERE {run} AND metric = 'mrr'")
    metrics = {(row["category"], row["stage"]): row["value"] for row in found}
    assert view
    assert {key: metrics[key] for key in view} == pytest.approx(view, abs=1e-12)


# --- again, and what changes


def _contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def test_the_same_run_again_makes_and_touches_nothing(ended: Finished, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(ended.store, store)
    before = _contents(store)
    again = ended.bench.run(store)
    assert again.made == ()
    assert (again.run_id, again.problems) == (ended.run.run_id, 0)
    assert _contents(store) == before


def test_another_k_reuses_the_encoding_and_keeps_both_runs(copied: Finished) -> None:
    run = copied.bench.run(copied.store, k=4)
    assert run.made == ("retrieve", "rerank", *RESULT)
    counts = rows(copied.store, "SELECT run_id, k FROM runs ORDER BY k")
    assert [tuple(row.values()) for row in counts] == [(run.run_id, 4), (copied.run.run_id, K)]
    ranked, before = (
        rankings(copied.store, run.run_id),
        rankings(copied.store, copied.run.run_id),
    )
    for key, candidates in ranked.items():
        kept = [row["image_id"] for row in before[key] if row["stage1_rank"] <= 4]
        assert _images(candidates) == kept


@pytest.mark.parametrize("index", ["flat", "ivf"])
def test_another_index_makes_candidates_anew_and_finds_the_same(
    copied: Finished, index: str
) -> None:
    run = copied.bench.run(copied.store, index=index)
    assert run.made == ("retrieve", "rerank", *RESULT)
    before = rankings(copied.store, copied.run.run_id)
    for key, candidates in rankings(copied.store, run.run_id).items():
        for row, old in zip(candidates, before[key], strict=True):
            assert row == old | {"run_id": run.run_id}


def test_an_index_that_cannot_be_is_refused_before_any_work(fiq: Bench, tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="no GPU"):
        fiq.run(tmp_path / "store", index="gpu")
    with pytest.raises(UsageError, match="neither lists nor probes"):
        fiq.run(tmp_path / "store", nprobe=3)
    assert not (tmp_path / "store").exists()


def test_another_precision_scores_anew_and_says_so(copied: Finished) -> None:
    run = copied.bench.run(copied.store, stage2_precision="bf16")
    assert run.made == ("rerank", *RESULT)
    sql = "SELECT run_id, vector_index, precision FROM runs"
    told = {
        row["run_id"]: (row["vector_index"], row["precision"]) for row in rows(copied.store, sql)
    }
    assert told[run.run_id] == ("exact", "bf16")
    assert told[copied.run.run_id] == ("exact", "fp32")
    assert "stage 2 in bf16" in run.report.read_text()


def test_a_precision_that_the_device_lacks_is_refused_before_any_work(
    fiq: Bench, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="fp16"):
        fiq.run(tmp_path / "store", precision="fp16", device="cpu")
    assert not (tmp_path / "store").exists()


def _other_stage2(pair: Pair, folder: Path) -> Pair:
    tensors = read_tensors(pair.stage2)
    tensors["score_head.output.bias"] += 1
    write_checkpoint(folder, read_config(pair.stage2), tensors)
    return Pair(pair.stage1, folder)


def test_other_stage_2_weights_redo_the_reranking_alone(copied: Finished, tmp_path: Path) -> None:
    pair = _other_stage2(copied.bench.pair, tmp_path / "other")
    run = copied.bench.run(copied.store, stage2=pair.stage2)
    assert run.made == ("rerank", *RESULT)
    before, one_sum = rankings(copied.store, copied.run.run_id), rounding(1, magnitude=5)
    for key, candidates in rankings(copied.store, run.run_id).items():
        assert _images(candidates) == _images(before[key])
        for row, old in zip(candidates, before[key], strict=True):
            assert row["stage2_score"] == pytest.approx(old["stage2_score"] + 1, abs=one_sum)


def test_weights_swapped_under_the_same_name_are_noticed(copied: Finished, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(copied.bench.pair.stage2, own)
    assert copied.bench.run(copied.store, stage2=own).made == ()
    other = _other_stage2(copied.bench.pair, tmp_path / "other")
    shutil.copy(other.stage2 / "model.safetensors", own / "model.safetensors")
    assert copied.bench.run(copied.store, stage2=own).made == ("rerank", *RESULT)


def test_a_changed_image_redoes_what_depends_on_it(copied: Finished) -> None:
    path = copied.bench.root / "images" / "dress-03.jpg"
    stamp = path.stat()
    with Image.open(path) as image:
        turned = image.rotate(180)
    turned.save(path)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # no decision uses the clock
    assert copied.bench.run(copied.store).made == ALL


def test_other_words_of_a_query_leave_the_gallery_alone(copied: Finished) -> None:
    encoded = _contents(copied.store / "artifacts" / "encode")
    file = copied.bench.root / "captions" / "cap.dress.val.json"
    content = json.loads(file.read_text())
    content[0]["captions"][0] = "is green with long sleeves"
    file.write_text(json.dumps(content))
    run = copied.bench.run(copied.store, batch=3)
    assert run.made == tuple(stage for stage in ALL if stage != "encode")
    assert _contents(copied.store / "artifacts" / "encode") == encoded


def test_one_category_alone_has_the_same_rankings(copied: Finished) -> None:
    category = copied.bench.categories[1]
    run = copied.bench.run(copied.store, categories=(category,))
    before = rankings(copied.store, copied.run.run_id)
    found = rankings(copied.store, run.run_id)
    assert len(found) == FIQ_QUERIES
    for key, candidates in found.items():
        assert _images(candidates) == _images(before[key])
    names = rows(copied.store, f"SELECT category FROM recall WHERE run_id = '{run.run_id}'")
    assert {row["category"] for row in names} == {category}


def test_categories_named_twice_or_in_another_order_are_the_same_run(copied: Finished) -> None:
    first, second = copied.bench.categories
    assert copied.bench.run(copied.store, categories=(second, first, second)).made == ()


def test_a_deleted_or_damaged_catalog_comes_back_alone(copied: Finished) -> None:
    before = tables(copied.store)
    for damage in (Path.unlink, lambda path: path.write_bytes(b"no database")):
        damage(copied.store / "cir.duckdb")
        assert copied.bench.run(copied.store).made == ("publish",)
        assert tables(copied.store) == before


@pytest.mark.parametrize("stage", ["encode", "fuse", "rerank", "ingest"])
def test_a_damaged_part_is_made_again_and_nothing_else_changes(
    copied: Finished, caplog: pytest.LogCaptureFixture, stage: str
) -> None:
    before = tables(copied.store)
    part = sorted((copied.store / "artifacts" / stage).rglob("*.parquet"))[0]
    good = part.read_bytes()
    part.write_bytes(good[:70] + bytes([good[70] ^ 4]) + good[71:])
    with caplog.at_level(logging.WARNING):
        assert copied.bench.run(copied.store).made == (stage,)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert str(part) in caplog.text
    assert part.read_bytes() == good
    assert tables(copied.store) == before


# --- however it is cut


def tables(store: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Everything in the catalog, sorted; without the time of making."""
    names = [row["table_name"] for row in rows(store, "SELECT table_name FROM duckdb_tables()")]
    assert "rankings" in names
    shown = {name: "* EXCLUDE created_at" if name == "runs" else "*" for name in names}
    return {
        name: query(store / "cir.duckdb", f"SELECT {columns} FROM {name} ORDER BY ALL")[1]
        for name, columns in shown.items()
    }


def fingerprints(store: Path) -> list[str]:
    return sorted(str(path.relative_to(store)) for path in (store / "artifacts").glob("*/*"))


def scores(store: Path, run_id: str) -> Iterator[tuple[tuple[str, str, str], tuple[float, float]]]:
    for (name, pool), candidates in rankings(store, run_id).items():
        for row in candidates:
            yield (name, pool, row["image_id"]), (row["stage1_score"], row["stage2_score"])


@pytest.mark.parametrize(("batch", "shard"), [(1, 256), (4, 5), (64, 3)])
def test_batch_and_shard_sizes_change_no_result_and_no_name(
    ended: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, shard: int
) -> None:
    monkeypatch.setattr("tasks.shards.PICTURES", shard)
    run = ended.bench.run(tmp_path, batch=batch)
    assert run.run_id == ended.run.run_id
    assert fingerprints(tmp_path) == fingerprints(ended.store)
    before = dict(scores(ended.store, run.run_id))
    found = dict(scores(tmp_path, run.run_id))
    assert found.keys() == before.keys()
    atol = rounding_of(ended.bench.pair)
    for key, pair in found.items():
        assert pair == pytest.approx(before[key], abs=atol)
    orders = [rankings(store, run.run_id) for store in (tmp_path, ended.store)]
    assert [_images(rows) for rows in orders[0].values()] == [
        _images(rows) for rows in orders[1].values()
    ]
    parts = list((tmp_path / "artifacts" / "rerank").rglob("scores-*.parquet"))
    assert len(parts) > 1 or shard == 256


def test_another_shard_and_batch_size_keep_what_is_whole(
    copied: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoded in one part, fused anew in many, with other last bits perhaps: the first is neither
    made again nor touched, and what was made of the old fused queries is."""
    encoded = _contents(copied.store / "artifacts" / "encode")
    shutil.rmtree(copied.store / "artifacts" / "fuse")
    monkeypatch.setattr("tasks.shards.PICTURES", 4)
    run = copied.bench.run(copied.store, batch=3)
    below = ("retrieve", "rerank", "rank", "evaluate", "publish", "report")
    assert run.made == ("fuse", *below)
    assert _contents(copied.store / "artifacts" / "encode") == encoded
    assert copied.bench.run(copied.store).made == ()


# --- problems


def test_a_missing_image_stops_the_run_unless_allowed(copied: Finished) -> None:
    """It goes from the gallery, is listed, and a query that wants it is a miss; the queries that
    it was the reference of cannot be asked, and are misses too."""
    captions = json.loads((copied.bench.root / "captions/cap.dress.val.json").read_text())
    targets = [entry["target"] for entry in captions]
    references = {entry["candidate"] for entry in captions}
    lost = next(name for name in targets if name not in references)
    wanted = [f"dress-{row:05d}" for row, target in enumerate(targets) if target == lost]
    next((copied.bench.root / "images").glob(f"{lost}.*")).unlink()
    with pytest.raises(ProblemsFound, match=lost) as caught:
        copied.bench.run(copied.store)
    assert caught.value.exit_code == 3
    assert "--allow-missing 1" in caught.value.remedy
    run = copied.bench.run(copied.store, allow_missing=1)
    assert run.problems == 1 + len(wanted)
    where = f"WHERE run_id = '{run.run_id}'"
    listed = rows(copied.store, f"SELECT item, kind FROM problems {where}")
    assert listed == [
        {"item": lost, "kind": "missing"},
        *({"item": query, "kind": "target_unusable"} for query in wanted),
    ]
    gallery = rows(
        copied.store, f"SELECT DISTINCT path FROM gallery {where} AND image_id = '{lost}'"
    )
    assert gallery == [{"path": None}]
    ranked = rankings(copied.store, run.run_id)
    assert len(ranked) == 2 * FIQ_QUERIES
    assert all(lost not in _images(candidates) for candidates in ranked.values())
    moved = rows(copied.store, f"SELECT * FROM rank_movement {where} AND stage2_rank IS NULL")
    assert [row["query_id"] for row in moved] == wanted
    everything = f"SELECT stage2, n FROM recall {where} AND category = 'dress' AND k = 50"
    share = 1 - len(wanted) / FIQ_QUERIES
    (row,) = rows(copied.store, everything)
    assert (row["stage2"], row["n"]) == (pytest.approx(share), FIQ_QUERIES)
    sql = (
        f"SELECT value FROM metrics {where} AND category = 'dress' AND k = 50 AND stage = 'stage2'"
    )
    assert rows(copied.store, sql) == [{"value": pytest.approx(share)}]


def test_queries_whose_reference_is_missing_are_misses_and_are_listed(copied: Finished) -> None:
    captions = json.loads((copied.bench.root / "captions/cap.toptee.val.json").read_text())
    lost = captions[0]["candidate"]
    own = [f"toptee-{row:05d}" for row, entry in enumerate(captions) if entry["candidate"] == lost]
    assert len(own) >= 2
    next((copied.bench.root / "images").glob(f"{lost}.*")).unlink()
    run = copied.bench.run(copied.store, allow_missing=1)
    where = f"WHERE run_id = '{run.run_id}'"
    sql = f"SELECT item FROM problems {where} AND kind = 'reference_unusable' ORDER BY item"
    assert [row["item"] for row in rows(copied.store, sql)] == own
    ranked = rankings(copied.store, run.run_id)
    assert {name for name, _ in ranked}.isdisjoint(own)
    assert len(ranked) == 2 * FIQ_QUERIES - len(own)
    sql = f"SELECT query_id, reason FROM failures {where} AND stage2_rank IS NULL ORDER BY ALL"
    failed = {row["query_id"]: row["reason"] for row in rows(copied.store, sql)}
    assert failed.items() >= dict.fromkeys(own, "cannot be answered").items()
    (row,) = rows(copied.store, f"SELECT n FROM recall {where} AND category = 'toptee' AND k = 1")
    assert row["n"] == FIQ_QUERIES


def test_a_target_of_another_gallery_is_a_miss_and_an_empty_text_is_scored(
    copied: Finished,
) -> None:
    path = copied.bench.root / "captions/cap.dress.val.json"
    entries = json.loads(path.read_text())
    entries[0]["target"], entries[1]["captions"] = "toptee-01", ["", ""]
    path.write_text(json.dumps(entries))
    with pytest.raises(ProblemsFound, match="dress-00000: target_not_in_gallery: toptee-01"):
        copied.bench.run(copied.store)
    run = copied.bench.run(copied.store, allow_missing=1)
    where = f"WHERE run_id = '{run.run_id}'"
    failed = rows(copied.store, f"SELECT query_id, reason FROM failures {where}")
    assert {"query_id": "dress-00000", "reason": "cannot be answered"} in failed
    (row,) = rows(copied.store, f"SELECT n FROM recall {where} AND category = 'dress' AND k = 1")
    assert row["n"] == FIQ_QUERIES
    ranked = rankings(copied.store, run.run_id)
    assert len(ranked["dress-00001", "gallery"]) == K


def test_a_picture_that_breaks_off_is_found_when_it_is_decoded(copied: Finished) -> None:
    """Its header is sound, so only encoding can tell."""
    path = copied.bench.root / "images" / "toptee-00.png"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ProblemsFound, match="truncated"):
        copied.bench.run(copied.store)
    run = copied.bench.run(copied.store, allow_missing=1)
    listed = rows(copied.store, f"SELECT item, kind FROM problems WHERE run_id = '{run.run_id}'")
    assert {"item": "toptee-00", "kind": "truncated"} in listed
    captions = json.loads((copied.bench.root / "captions/cap.toptee.val.json").read_text())
    unasked = [
        {"item": f"toptee-{row:05d}", "kind": "reference_unusable"}
        for row, entry in enumerate(captions)
        if entry["candidate"] == "toptee-00"
    ]
    assert listed[1:] == unasked


@pytest.mark.parametrize(
    ("fixture", "most"), [("fiq_run", FIQ_IMAGES), ("cirr_run", CIRR_IMAGES - 1)]
)
def test_k_beyond_the_gallery_is_clipped_with_a_note(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    fixture: str,
    most: int,
) -> None:
    ended: Finished = request.getfixturevalue(fixture)
    shutil.copytree(ended.store, tmp_path / "store")
    with caplog.at_level(logging.WARNING):
        run = ended.bench.run(tmp_path / "store", k=most + 1)
    name = ended.bench.categories[0] if ended.bench.categories else "cirr"
    assert f"K={most + 1} is larger than the gallery {name}: {most} images" in caplog.text
    assert (f"{most} images without the reference" in caplog.text) == (name == "cirr")
    ranked = rankings(tmp_path / "store", run.run_id)
    asked = rows(tmp_path / "store", "SELECT DISTINCT query_id, category FROM queries")
    categories = {row["query_id"]: row["category"] for row in asked}
    for (query_id, pool), candidates in ranked.items():
        if pool == "gallery" and categories[query_id] == name:
            assert len(candidates) == most
    assert all(row["stage2_rank"] for row in rows(
        tmp_path / "store", f"SELECT * FROM rank_movement WHERE run_id = '{run.run_id}'"
    ))  # fmt: skip


# --- what cannot be


def test_different_visual_encoders_are_refused_and_nothing_is_ranked(
    fiq: Bench, tmp_path: Path
) -> None:
    tensors = read_tensors(fiq.pair.stage2)
    tensors["vision.norm.bias"][0] += 1e-6
    write_checkpoint(tmp_path / "other", read_config(fiq.pair.stage2), tensors)
    with pytest.raises(CheckpointRefused, match="different visual encoders"):
        fiq.run(tmp_path / "store", stage2=tmp_path / "other")
    assert not (tmp_path / "store" / "artifacts" / "rerank").exists()
    assert not (tmp_path / "store" / "cir.duckdb").exists()


@pytest.mark.parametrize("device", ["abacus", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_before_any_work(
    fiq: Bench, tmp_path: Path, device: str
) -> None:
    with pytest.raises(UsageError, match=device):
        fiq.run(tmp_path / "store", device=device)
    assert not (tmp_path / "store").exists()


def test_the_manifests_name_exactly_what_was_used(ended: Finished) -> None:
    retrieved = ended.run.evaluated.candidates.identity()
    encoded = ended.run.evaluated.candidates.encoded.identity()
    assert encoded["inputs"]["model"] == plain_model_sha256(ended.bench.pair.stage1)
    assert retrieved["settings"]["k"] == K
    assert retrieved["settings"]["removes_reference"] == (ended.bench.dataset == "cirr")
