"""What an ingested split asks of a model, counted from its tables."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cir_core.planning.effort import Workload
from cir_core.planning.expected import Expected, Pool, expect
from cir_core.planning.expected import known as certain
from cir_core.ports import Load, Reading, RerankerConfig, RetrieverConfig
from cir_core.search.candidates import NONE_REMOVED
from storage.tables import rows_of
from storage.views import Encoded, Ingested
from tasks.feed.pictures import Distinct, distinct_pictures
from tasks.stages.earlier.scores import NO_SCORES, Scores
from tasks.stages.gallery import categories_by_gallery, usable_images
from tasks.stages.questions import Questions, read_questions


def count_workload(
    source: Ingested,
    reading: Reading,
    *,
    k: int,
    encoded: Encoded | None,
    candidates: pa.Table | None,
    scores: Callable[[Questions], Scores] = lambda _: NO_SCORES,
) -> Workload:
    """Of the images and queries that can be used: could be decoded, too, where ``encoded`` tells.
    Pairs are counted from stage 1's ``candidates`` where it has chosen, and expected otherwise; but
    for those of which the questions have ``scores`` already."""
    removes_reference = source.protocol.removes_reference
    images = source.read("images")
    usable = images
    if encoded is not None:
        usable = usable_images(source, encoded)
    pictures = distinct_pictures(images)
    queries = source.read("queries")
    queries = queries.filter(pc.is_in(queries["reference_id"], usable["image_id"].combine_chunks()))
    questions = read_questions(reading, queries, pictures)
    texts, known = _texts(queries, questions), scores(questions)
    gallery = source.read("gallery").join(
        usable.select(["image_id"]), "image_id", join_type="inner"
    )
    rows = pictures.of(gallery["image_id"])
    firsts = texts["is_first"].to_numpy()
    pools, compared, candidates_expected = [], 0, 0
    for name, categories in categories_by_gallery(source).items():
        here = rows[pc.equal(gallery["gallery"], name).to_numpy()]
        mine = texts.filter(pc.is_in(texts["category"], pa.array(categories, pa.string())))
        pool = _pool(mine, here, pictures, k, removes_reference)
        first = mine["is_first"].to_numpy()
        compared += int(first.sum()) * len(here)
        candidates_expected += int(pool.candidates[first].sum() + first[pool.asking].sum())
        way = mine["way"].to_numpy()
        once = _asked_once(pool, way)
        if len(known.key):
            question = np.unique(way) // 2
            once = _without_known(once, question, known.number, questions=len(questions))
        pools.append(once)
    expected = expect(pools, len(pictures))
    if candidates is not None:
        chosen = _chosen(candidates, texts, pictures, known, questions=len(questions))
        candidates_expected, expected = candidates.num_rows, chosen
    once = texts.take(pa.array(np.unique(texts["way"].to_numpy(), return_index=True)[1]))
    return Workload(
        images=images.num_rows,
        pictures=len(pictures),
        queries=int(firsts.sum()),
        galleries=len(pools),
        token_ids=once["token_ids"].to_pylist(),
        references=pictures.of(once["reference_id"]),
        asked_by=once["query_id"].to_pylist(),
        compared=compared,
        candidates=candidates_expected,
        expected=expected,
    )


def reading_of_pairs(stage1: RetrieverConfig, stage2: RerankerConfig | None) -> Reading:
    """Whose token ids stage 2 scores: those of the z_t, or, without one, its own."""
    return stage1 if stage2 is None or stage2.state_width else stage2


def _texts(queries: pa.Table, questions: Questions) -> pa.Table:
    """A row per text of a query; the other text of a query is not its first. Texts of one question
    have the same ``way``."""
    place = rows_of(
        pa.array([one for ids in questions.query_ids for one in ids], pa.string()),
        queries["query_id"],
    )
    question = np.repeat(np.arange(len(questions)), [len(ids) for ids in questions.query_ids])
    asked = [
        (row, number, way)
        for row, number in zip(place.tolist(), question.tolist(), strict=True)
        for way in range(len(questions.texts[number]))
    ]
    columns = ["query_id", "category", "reference_id", "subset"]
    table = queries.select(columns).take(pa.array([row for row, _, _ in asked], pa.int64()))
    token_ids = [questions.texts[number][way] for _, number, way in asked]
    return (
        table.append_column(
            "way", pa.array([2 * number + way for _, number, way in asked], pa.int64())
        )
        .append_column("is_first", pa.array([way == 0 for _, _, way in asked], pa.bool_()))
        .append_column("token_ids", pa.array(token_ids, pa.list_(pa.int64())))
    )


def _pool(
    texts: pa.Table,
    gallery: np.ndarray,
    pictures: Distinct,
    k: int,
    removes_reference: bool,
) -> Pool:
    """What the texts of one gallery ask of it; members of subsets that are not in it are not asked
    for. Copies of a reference that is removed are not."""
    references = pictures.of(texts["reference_id"])
    found, copies = np.unique(gallery, return_counts=True)
    removed = np.isin(references, gallery) & removes_reference
    subsets = texts["subset"].combine_chunks()
    asking = pc.list_parent_indices(subsets).to_numpy()
    members = pictures.of(pc.list_flatten(subsets))
    inside = np.isin(members, gallery)
    return Pool(
        gallery=found,
        images=len(gallery),
        lengths=pc.list_value_length(texts["token_ids"]).to_numpy().astype(np.int64),
        removed=np.where(
            removed & ~np.isin(references, found[copies > 1]), references, NONE_REMOVED
        ),
        candidates=np.minimum(k, np.maximum(0, len(gallery) - removed)),
        asking=asking[inside],
        members=members[inside],
    )


def _asked_once(pool: Pool, way: np.ndarray) -> Pool:
    """The same of distinct texts: what several queries ask alike is scored once."""
    _, first, number = np.unique(way, return_index=True, return_inverse=True)
    pairs = np.stack([number[pool.asking], pool.members], axis=1)
    asking, members = np.unique(pairs, axis=0).T
    return replace(
        pool,
        lengths=pool.lengths[first],
        removed=pool.removed[first],
        candidates=pool.candidates[first],
        asking=asking,
        members=members,
    )


def _without_known(pool: Pool, question: np.ndarray, known: np.ndarray, *, questions: int) -> Pool:
    """The same of texts of these questions, less the ``known`` numbers. Known images are a text's
    best, so they are its candidates again, but for members of its subset: these are as likely to be
    among the rest of its candidates as any other image."""
    picture, asked = np.divmod(known, max(1, questions))
    there = np.bincount(asked[np.isin(picture, pool.gallery)], minlength=questions)[question]
    is_left = ~np.isin(pool.members * questions + question[pool.asking], known)
    best = there - np.bincount(pool.asking[~is_left], minlength=len(question))
    others = pool.images - (pool.removed != NONE_REMOVED)
    is_new = np.maximum(0, others - there) / np.maximum(1, others - best)
    return replace(
        pool,
        candidates=np.maximum(0, pool.candidates - best) * is_new,
        asking=pool.asking[is_left],
        members=pool.members[is_left],
    )


def _chosen(
    candidates: pa.Table, texts: pa.Table, pictures: Distinct, known: Scores, *, questions: int
) -> Expected:
    """What is scored once: distinct pairs of a text and a picture that are not known."""
    asked = texts.select(["query_id", "way"]).append_column(
        "length", pc.list_value_length(texts["token_ids"])
    )
    found = pa.table(
        {
            "query_id": candidates["query_id"],
            "picture": pictures.of(candidates["image_id"]),
            "cosine": candidates["stage1_score"],
        }
    )
    pairs = found.join(asked, "query_id", join_type="inner")
    number = pairs["picture"].to_numpy() * questions + pairs["way"].to_numpy() // 2
    is_left = np.isnan(known.at(number, pairs["cosine"].to_numpy()))
    left = pairs.filter(pa.array(is_left)).group_by(["way", "picture", "length"]).aggregate([])
    lengths, rows = left["length"].to_numpy().astype(np.int64), left["picture"].to_numpy()
    return certain(Load.of(lengths, rows, images=len(pictures)))
