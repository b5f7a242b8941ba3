-- The members of each category's gallery. path and what follows it is NULL where the image could not
-- be used, see problems.
CREATE VIEW gallery AS
SELECT g.run_id, g.category, m.position, m.image_id, m.path, m.sha256, m.width, m.height
FROM galleries g JOIN gallery_members m USING (run_id, gallery);
COMMENT ON COLUMN gallery.sha256 IS 'of the file';

-- Where each labelled query's best target stands before and after re-ranking, per pool.
-- A target that is no candidate keeps stage 1's rank: re-ranking does not move it. Of a run that
-- ended with stage 1, nothing is known after it.
CREATE VIEW rank_movement AS
WITH best AS (
    SELECT c.run_id, c.query_id, c.pool,
           min(c.stage1_rank) AS stage1_rank, min(r.rank) AS stage2_rank
    FROM candidates c
    JOIN queries q USING (run_id, query_id)
    LEFT JOIN rankings r USING (run_id, query_id, pool, image_id)
    WHERE list_contains(q.recall_targets, c.image_id)
    GROUP BY ALL
)
SELECT q.run_id, q.query_id, q.category, p.pool, q.reference_id, q.text, q.targets,
       CASE p.pool WHEN 'gallery' THEN q.target_stage1_rank ELSE b.stage1_rank END AS stage1_rank,
       CASE WHEN p.pool = 'gallery' AND runs.stage2_sha256 IS NOT NULL
            THEN coalesce(b.stage2_rank, q.target_stage1_rank)
            ELSE b.stage2_rank END AS stage2_rank,
       b.query_id IS NOT NULL AS is_candidate,
       b.stage1_rank - b.stage2_rank AS places_gained
FROM queries q
JOIN runs USING (run_id)
JOIN (SELECT 'gallery' AS pool UNION ALL SELECT 'subset') p
    ON p.pool = 'gallery' OR q.subset IS NOT NULL
LEFT JOIN best b ON b.run_id = q.run_id AND b.query_id = q.query_id AND b.pool = p.pool
WHERE q.targets IS NOT NULL;
COMMENT ON COLUMN rank_movement.stage1_rank IS 'of the best target; NULL: nobody ranked it';
COMMENT ON COLUMN rank_movement.stage2_rank IS 'of the best target, in the final order';
COMMENT ON COLUMN rank_movement.is_candidate IS 'whether stage 1 handed a target over';
COMMENT ON COLUMN rank_movement.places_gained IS 'up: positive; NULL where no target was re-ranked';

-- Recall@k per category, macro- (average) and micro-averaged (micro), recomputed from the ranks.
-- Stage 2's and the gain are NULL where nothing was re-ranked.
CREATE VIEW recall AS
WITH hits AS (
    SELECT m.run_id, m.category, m.pool, ks.k,
           avg((coalesce(m.stage1_rank, 2147483647) <= ks.k)::DOUBLE) AS stage1,
           avg((coalesce(m.stage2_rank, 2147483647) <= ks.k)::DOUBLE)
               FILTER (runs.stage2_sha256 IS NOT NULL) AS stage2,
           count(*) AS n
    FROM rank_movement m
    JOIN runs USING (run_id)
    JOIN (SELECT 'gallery' AS pool, unnest([1, 5, 10, 50]) AS k
          UNION ALL SELECT 'subset', unnest([1, 2, 3])) ks USING (pool)
    GROUP BY ALL
)
SELECT run_id, category, pool, k, stage1, stage2, stage2 - stage1 AS gain, n FROM hits
UNION ALL
SELECT run_id, 'average', pool, k, avg(stage1), avg(stage2), avg(stage2 - stage1), sum(n)::BIGINT
FROM hits GROUP BY run_id, pool, k HAVING count(*) > 1
UNION ALL
SELECT run_id, 'micro', pool, k, sum(stage1 * n) / sum(n), sum(stage2 * n) / sum(n),
       sum((stage2 - stage1) * n) / sum(n), sum(n)::BIGINT
FROM hits GROUP BY run_id, pool, k HAVING count(*) > 1;
COMMENT ON COLUMN recall.k IS 'places that count';
COMMENT ON COLUMN recall.stage1 IS 'a fraction, in stage 1''s order';
COMMENT ON COLUMN recall.stage2 IS 'a fraction, in the final order';
COMMENT ON COLUMN recall.gain IS 'stage2 - stage1';

-- Mean reciprocal rank of the target that counts for recall, per category.
CREATE VIEW mrr AS
SELECT run_id, category, avg(coalesce(1.0 / stage1_rank, 0)) AS stage1,
       avg(coalesce(1.0 / stage2_rank, 0)) FILTER (runs.stage2_sha256 IS NOT NULL) AS stage2,
       count(*) AS n
FROM rank_movement JOIN runs USING (run_id) WHERE pool = 'gallery' GROUP BY ALL;
COMMENT ON COLUMN mrr.stage1 IS 'in stage 1''s order';
COMMENT ON COLUMN mrr.stage2 IS 'in the final order';

-- Mean average precision over all targets, with CIRCO's denominator min(targets, k), per category.
CREATE VIEW mean_average_precision AS
WITH ranked AS (
    SELECT q.run_id, q.category, q.query_id, len(q.targets) AS targets,
           unnest([{'stage': 'stage1', 'rank': t.stage1_rank},
                   {'stage': 'stage2', 'rank': coalesce(r.rank, t.stage1_rank)}], recursive := true)
    FROM queries q
    JOIN target_ranks t USING (run_id, query_id)
    LEFT JOIN rankings r
        ON r.run_id = t.run_id AND r.query_id = t.query_id
        AND r.image_id = t.image_id AND r.pool = 'gallery'
),
hits AS (
    SELECT *, row_number() OVER (PARTITION BY run_id, query_id, stage ORDER BY rank) / rank
        AS precision
    FROM ranked
),
per_query AS (
    SELECT q.run_id, q.category, q.query_id, s.stage, ks.k,
           coalesce(sum(h.precision) FILTER (h.rank <= ks.k), 0) / least(len(q.targets), ks.k) AS ap
    FROM queries q
    JOIN (SELECT run_id, unnest(['stage1', 'stage2']) AS stage, stage2_sha256 FROM runs) s
        ON s.run_id = q.run_id AND (s.stage = 'stage1' OR s.stage2_sha256 IS NOT NULL)
    CROSS JOIN (SELECT unnest([5, 10, 25, 50]) AS k) ks
    LEFT JOIN hits h ON h.run_id = q.run_id AND h.query_id = q.query_id AND h.stage = s.stage
    WHERE q.targets IS NOT NULL
    GROUP BY q.run_id, q.category, q.query_id, q.targets, s.stage, ks.k
)
SELECT run_id, category, stage, k, avg(ap) AS value, count(*) AS n FROM per_query GROUP BY ALL;
COMMENT ON COLUMN mean_average_precision.stage IS 'stage1 or stage2';
COMMENT ON COLUMN mean_average_precision.k IS 'places that count';

-- Share of queries with a target among stage 1's first k: what re-ranking k candidates can reach.
CREATE VIEW coverage AS
SELECT m.run_id, m.category, ks.k,
       avg((coalesce(m.stage1_rank, 2147483647) <= ks.k)::DOUBLE) AS coverage, count(*) AS n
FROM rank_movement m
JOIN (SELECT run_id, unnest(list_sort(list_distinct([1, 5, 10, 20, 50, 100, 200, k]))) AS k
      FROM runs) ks USING (run_id)
WHERE m.pool = 'gallery'
GROUP BY ALL;
COMMENT ON COLUMN coverage.k IS 'candidates per query: some, and the run''s own';
COMMENT ON COLUMN coverage.coverage IS 'a fraction';

-- The problems of queries, by their kinds. The item of every other problem is an image, which may be
-- called as some query is.
CREATE VIEW query_problems AS
SELECT run_id, item AS query_id, kind, message FROM problems
WHERE kind IN ('reference_unusable', 'target_unusable', 'target_not_in_gallery', 'text_too_long');

-- Every labelled query whose target is not first in the run's last order, and why.
CREATE VIEW failures AS
SELECT m.run_id, m.query_id, m.category, m.pool, m.reference_id, m.text, m.targets,
       first.image_id AS answered, m.stage1_rank, m.stage2_rank,
       CASE WHEN m.is_candidate THEN 'ordered wrong'
            -- A target that a file of candidates lacks has no rank, and no problem.
            WHEN m.stage1_rank IS NULL AND (r.first_stage <> 'candidates' OR EXISTS (
                FROM query_problems p WHERE p.run_id = m.run_id AND p.query_id = m.query_id
            )) THEN 'cannot be answered' -- see the table problems
            ELSE 'lost in stage 1' END AS reason
FROM rank_movement m
JOIN runs r USING (run_id)
LEFT JOIN (
    SELECT run_id, query_id, pool, image_id FROM rankings WHERE rank = 1
    UNION ALL
    SELECT c.run_id, c.query_id, c.pool, c.image_id FROM candidates c JOIN runs USING (run_id)
    WHERE c.stage1_rank = 1 AND runs.stage2_sha256 IS NULL
) first ON first.run_id = m.run_id AND first.query_id = m.query_id AND first.pool = m.pool
WHERE coalesce(
    CASE WHEN r.stage2_sha256 IS NULL THEN m.stage1_rank ELSE m.stage2_rank END, 2147483647
) > 1;
COMMENT ON COLUMN failures.answered IS 'the image that is first instead';
COMMENT ON COLUMN failures.stage1_rank IS 'of the best target; NULL: nobody ranked it';
COMMENT ON COLUMN failures.stage2_rank IS 'of the best target, in the final order';
COMMENT ON COLUMN failures.reason IS 'lost in stage 1, ordered wrong, or cannot be answered';

-- How fast each stage was. NULL where nothing is recorded, or nothing of the kind was done.
CREATE VIEW speeds AS
SELECT run_id, stage, seconds, images / nullif(seconds, 0) AS images_per_second,
       queries / nullif(seconds, 0) AS queries_per_second,
       pairs / nullif(seconds, 0) AS pairs_per_second,
       gflop / nullif(seconds, 0) AS gflop_per_second
FROM costs;
COMMENT ON COLUMN speeds.stage IS 'of a run: encode, fuse and so on';
COMMENT ON COLUMN speeds.images_per_second IS 'of the images that it took';
COMMENT ON COLUMN speeds.queries_per_second IS 'of the queries that it took';
COMMENT ON COLUMN speeds.pairs_per_second IS 'of the pairs that it scored';
COMMENT ON COLUMN speeds.gflop_per_second IS 'of the work by its formula';

-- What re-ranking gave for its work, with its interval. It is told in percentage points of each
-- measure for 10^15 floating-point operations of stage 2, and only where all of its work is recorded:
-- of none of its pairs was the score taken from an earlier run. Where it read kept image tokens, what these took is not among them: see costs.
CREATE VIEW gain_per_petaflop AS
SELECT m.run_id, m.category, m.pool, m.metric, m.k, c.gflop / 1e6 AS petaflop,
       100 * m.value / (c.gflop / 1e6) AS points, 100 * m.ci_low / (c.gflop / 1e6) AS points_low,
       100 * m.ci_high / (c.gflop / 1e6) AS points_high, m.n
FROM metrics m JOIN costs c ON c.run_id = m.run_id AND c.stage = 'rerank'
WHERE m.stage = 'gain' AND c.recorded >= 1 AND c.copied = 0 AND c.gflop > 0;
COMMENT ON COLUMN gain_per_petaflop.k IS 'of the metric; 0 where it has none';
COMMENT ON COLUMN gain_per_petaflop.petaflop IS 'of stage 2, 10^15 operations';
COMMENT ON COLUMN gain_per_petaflop.points IS 'percentage points of the metric, for each of these';
COMMENT ON COLUMN gain_per_petaflop.points_low IS 'lower end of the 95 % interval';
COMMENT ON COLUMN gain_per_petaflop.points_high IS 'upper end of the 95 % interval';

-- What a late fusion ranks by. It is stage 2's score plus runs.late_fusion times stage 1's, as they
-- are or standardised within a query and pool. (A subset in the main ranking's order is ranked by
-- that.)
CREATE VIEW fused_scores AS
WITH spread AS (
    SELECT run_id, query_id, pool,
           avg(stage1_score::DOUBLE) AS mean1, avg(stage2_score::DOUBLE) AS mean2,
           CASE WHEN min(stage1_score) < max(stage1_score)
                THEN 1 / stddev_pop(stage1_score::DOUBLE) ELSE 0 END AS share1,
           CASE WHEN min(stage2_score) < max(stage2_score)
                THEN 1 / stddev_pop(stage2_score::DOUBLE) ELSE 0 END AS share2
    FROM rankings JOIN runs USING (run_id) WHERE late_fusion IS NOT NULL
    GROUP BY ALL
)
SELECT r.run_id, r.query_id, r.pool, r.image_id, r.rank,
       CASE runs.late_fusion_scores
           WHEN 'raw' THEN r.stage2_score::DOUBLE + runs.late_fusion * r.stage1_score::DOUBLE
           ELSE (r.stage2_score::DOUBLE - s.mean2) * s.share2
                + runs.late_fusion * (r.stage1_score::DOUBLE - s.mean1) * s.share1
       END AS fused_score
FROM rankings r JOIN spread s USING (run_id, query_id, pool) JOIN runs USING (run_id);
COMMENT ON COLUMN fused_scores.fused_score IS 'the highest is first';

-- Integrity (must return no row): a run is there once.
CREATE VIEW integrity_runs AS
SELECT run_id FROM runs GROUP BY ALL HAVING count(*) > 1;

-- Integrity (must return no row): stage 2 has scored every candidate.
CREATE VIEW integrity_unscored_candidates AS
SELECT c.run_id, c.query_id, c.pool, c.image_id FROM candidates c JOIN runs USING (run_id)
WHERE runs.stage2_sha256 IS NOT NULL
EXCEPT SELECT run_id, query_id, pool, image_id FROM rankings;

-- Integrity (must return no row): a query's ranks are 1, 2, 3 and on.
CREATE VIEW integrity_ranks_without_gaps AS
SELECT run_id, query_id, pool FROM rankings
GROUP BY ALL
HAVING count(*) <> max(rank) OR count(*) <> count(DISTINCT rank);

-- Integrity (must return no row): a gallery's members are those that its hash was made of.
CREATE VIEW integrity_galleries AS
WITH members AS (
    SELECT run_id, gallery, count(path) AS images, count(*) - count(path) AS missing,
           sha256(coalesce(string_agg(sha256 || ' ' || image_id || chr(10), '' ORDER BY position)
                           FILTER (path IS NOT NULL), '')) AS sha256
    FROM gallery_members GROUP BY ALL
)
SELECT g.run_id, g.category FROM galleries g LEFT JOIN members m USING (run_id, gallery)
WHERE (g.images, g.missing) IS DISTINCT FROM (coalesce(m.images, 0), coalesce(m.missing, 0))
   OR g.sha256 <> coalesce(m.sha256, sha256(''));
