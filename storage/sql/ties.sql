-- Scores that several candidates of a query share, in one stage. Their order is the gallery's, which
-- means nothing. Copies of one picture always tie; other pictures do where numbers are too coarse.
CREATE VIEW tied_scores AS
WITH scored AS (
    SELECT run_id, query_id, pool, 'stage1' AS stage, stage1_score::DOUBLE AS score,
           stage1_rank AS rank, image_id
    FROM candidates
    UNION ALL
    SELECT r.run_id, r.query_id, r.pool, 'stage2', coalesce(f.fused_score, r.stage2_score::DOUBLE),
           r.rank, r.image_id
    FROM rankings r LEFT JOIN fused_scores f USING (run_id, query_id, pool, image_id)
),
found AS (
    SELECT run_id, query_id, pool, stage, score, min(rank) AS first_rank, max(rank) AS last_rank
    FROM scored GROUP BY ALL HAVING count(*) > 1
),
tied AS (
    SELECT t.run_id, t.query_id, t.pool, t.stage, t.score, t.first_rank, t.last_rank,
           list(s.image_id ORDER BY s.rank) AS images
    FROM found t JOIN scored s USING (run_id, query_id, pool, stage, score) GROUP BY ALL
),
files AS (SELECT DISTINCT run_id, image_id, sha256 FROM gallery_members),
pictures AS (
    SELECT t.run_id, t.query_id, t.pool, t.stage, t.score,
           count(DISTINCT coalesce(f.sha256, t.image_id)) AS pictures
    FROM (SELECT *, unnest(images) AS image_id FROM tied) t LEFT JOIN files f USING (run_id, image_id)
    GROUP BY ALL
)
SELECT t.run_id, t.query_id, q.category, t.pool, t.stage, t.score, t.first_rank, t.last_rank,
       t.images, p.pictures::INTEGER AS pictures,
       coalesce(len(list_intersect(t.images, q.recall_targets)), 0)::INTEGER AS targets
FROM tied t
JOIN pictures p USING (run_id, query_id, pool, stage, score)
JOIN queries q USING (run_id, query_id);
COMMENT ON COLUMN tied_scores.stage IS 'stage1, or stage2: the final order, and its score';
COMMENT ON COLUMN tied_scores.score IS 'that they share; of a late fusion, what it ranks by';
COMMENT ON COLUMN tied_scores.first_rank IS 'of the best of them';
COMMENT ON COLUMN tied_scores.last_rank IS 'of the worst of them';
COMMENT ON COLUMN tied_scores.images IS 'in their order';
COMMENT ON COLUMN tied_scores.pictures IS 'how many of the images differ; 1: all are copies';
COMMENT ON COLUMN tied_scores.targets IS 'how many of the images count as answers';

-- Ties of each run, and what its MRR hangs on them. That is over all queries of the gallery pool, with
-- the least and the most that another order of equal scores would give. No integrity: it stops nothing.
CREATE VIEW ties AS
WITH tied AS MATERIALIZED (FROM tied_scores),
neighbours AS (
    SELECT run_id, pool, 'stage1' AS stage, count(*) - count(DISTINCT query_id) AS neighbours
    FROM candidates GROUP BY ALL
    UNION ALL
    SELECT run_id, pool, 'stage2', count(*) - count(DISTINCT query_id) FROM rankings GROUP BY ALL
),
counted AS (
    SELECT run_id, pool, stage, sum(len(images) - 1) AS tied, sum(len(images) - pictures) AS copies,
           count(DISTINCT query_id) AS queries,
           count(DISTINCT query_id) FILTER (targets > 0 AND targets < len(images)) AS with_target
    FROM tied GROUP BY ALL
),
placed AS (
    SELECT run_id, query_id, 'stage1' AS stage, stage1_rank AS rank
    FROM rank_movement WHERE pool = 'gallery'
    UNION ALL
    SELECT m.run_id, m.query_id, 'stage2', m.stage2_rank
    FROM rank_movement m JOIN runs USING (run_id)
    WHERE m.pool = 'gallery' AND runs.stage2_sha256 IS NOT NULL
),
bounds AS (
    SELECT p.run_id, p.stage, avg(coalesce(1 / p.rank, 0)) AS mrr,
           avg(coalesce(1 / coalesce(t.last_rank - t.targets + 1, p.rank), 0)) AS mrr_least,
           avg(coalesce(1 / coalesce(t.first_rank, p.rank), 0)) AS mrr_most
    FROM placed p
    LEFT JOIN tied t
        ON t.run_id = p.run_id AND t.query_id = p.query_id AND t.stage = p.stage
        AND t.pool = 'gallery' AND t.targets > 0 AND p.rank BETWEEN t.first_rank AND t.last_rank
    GROUP BY ALL
)
SELECT n.run_id, n.pool, n.stage, n.neighbours, coalesce(c.tied, 0)::BIGINT AS tied,
       coalesce(c.copies, 0)::BIGINT AS copies, coalesce(c.queries, 0)::BIGINT AS queries,
       coalesce(c.with_target, 0)::BIGINT AS with_target, b.mrr, b.mrr_least, b.mrr_most
FROM neighbours n
LEFT JOIN counted c USING (run_id, pool, stage)
LEFT JOIN bounds b ON b.run_id = n.run_id AND b.stage = n.stage AND n.pool = 'gallery';
COMMENT ON COLUMN ties.stage IS 'stage1, or stage2: the final order, and its score';
COMMENT ON COLUMN ties.neighbours IS 'pairs of neighbours in rankings';
COMMENT ON COLUMN ties.tied IS 'of these, pairs with equal scores';
COMMENT ON COLUMN ties.copies IS 'of these, between copies of one picture';
COMMENT ON COLUMN ties.queries IS 'with a tie';
COMMENT ON COLUMN ties.with_target IS 'queries where a target ties with another image';
COMMENT ON COLUMN ties.mrr IS 'as it is, over all labelled queries; NULL without any';
COMMENT ON COLUMN ties.mrr_least IS 'if ties fell against the targets';
COMMENT ON COLUMN ties.mrr_most IS 'if ties fell for the targets';
