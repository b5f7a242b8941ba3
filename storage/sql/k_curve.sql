-- Recall@k and its ceiling, had stage 1 kept fewer candidates. There is every K up to the run's (above
-- 99, those of two significant digits, and the run's own). Nothing is scored again: of K candidates, a
-- target that stage 1 has at place s ranks s if s > K, and else one more than the candidates that
-- stage 1 has among its first K and the final order before the target. So it is among the first k for
-- the K of one interval, and each K counts the intervals that hold it. Recall is NULL where nothing was
-- re-ranked, and where the order itself depends on K (a late fusion of standardised scores). pairs are
-- what is scored, of labelled queries and others.
CREATE VIEW k_curve AS
WITH targets AS (
    SELECT q.run_id, q.category, q.query_id, q.image_id, t.stage1_rank,
           c.stage1_rank AS kept_at, r.rank
    FROM (SELECT run_id, category, query_id, unnest(list_distinct(recall_targets)) AS image_id
          FROM queries) q
    LEFT JOIN target_ranks t USING (run_id, query_id, image_id)
    LEFT JOIN (SELECT * FROM candidates WHERE pool = 'gallery') c
        USING (run_id, query_id, image_id)
    LEFT JOIN (SELECT * FROM rankings WHERE pool = 'gallery') r USING (run_id, query_id, image_id)
),
overtaken AS (
    -- Where stage 1 has the k-th of the candidates that the final order has before a target.
    SELECT run_id, query_id, image_id, k, overtaken_at
    FROM (SELECT t.run_id, t.query_id, t.image_id, r.stage1_rank AS overtaken_at,
                 row_number() OVER (
                     PARTITION BY t.run_id, t.query_id, t.image_id ORDER BY r.stage1_rank
                 ) AS k
          FROM targets t JOIN rankings r USING (run_id, query_id)
          WHERE r.pool = 'gallery' AND r.rank < t.rank)
    WHERE k IN (1, 5, 10, 50)
),
hits AS (
    -- From which K on, and from which on no longer, a target is among the first k.
    SELECT t.run_id, t.category, t.query_id, t.k,
           CASE WHEN t.stage1_rank <= t.k THEN 1 ELSE t.kept_at END AS since,
           coalesce(o.overtaken_at, 2147483647) AS until
    FROM (SELECT *, unnest([1, 5, 10, 50]) AS k FROM targets) t
    LEFT JOIN overtaken o USING (run_id, query_id, image_id, k)
),
alone AS (
    -- Of several targets' intervals, what those that begin earlier do not hold.
    SELECT run_id, category, k, until, greatest(since, coalesce(max(until) OVER (
               PARTITION BY run_id, query_id, k ORDER BY since, until
               ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0)) AS since
    FROM hits WHERE since < until
),
changes AS (
    -- What K adds: by measure k, hits among the first k; by 0, targets among candidates; by -1, pairs.
    SELECT run_id, category, k AS measure, unnest([since, until]) AS since, unnest([1, -1]) AS step,
           NULL AS n
    FROM alone WHERE since < until
    UNION ALL
    SELECT run_id, category, 0, min(kept_at), 1, NULL FROM targets GROUP BY run_id, category, query_id
    UNION ALL
    SELECT c.run_id, q.category, -1, c.stage1_rank, count(*), NULL
    FROM candidates c JOIN queries q USING (run_id, query_id) WHERE c.pool = 'gallery' GROUP BY ALL
    UNION ALL
    SELECT run_id, category, unnest([-1, 0, 1, 5, 10, 50]), k_candidates, 0, n
    FROM (SELECT run_id, k AS most, unnest(range(1, k + 1))::INTEGER AS k_candidates FROM runs)
    JOIN (SELECT run_id, category, count(*) AS n FROM queries WHERE targets IS NOT NULL GROUP BY ALL)
        USING (run_id)
    WHERE k_candidates = most
       OR k_candidates % pow(10, greatest(0, length(k_candidates::VARCHAR) - 2))::INTEGER = 0
),
reached AS (
    SELECT run_id, category, measure, since, n, sum(step) OVER (
               PARTITION BY run_id, category, measure ORDER BY since) AS reached
    FROM changes WHERE since IS NOT NULL
),
by_category AS (
    SELECT run_id, category, since AS k_candidates, measure AS k, reached / n AS recall,
           max(reached) FILTER (measure = 0) OVER at_k / n AS coverage, n,
           max(reached) FILTER (measure = -1) OVER at_k AS pairs
    FROM reached WHERE n IS NOT NULL
    WINDOW at_k AS (PARTITION BY run_id, category, since)
)
SELECT m.run_id, CASE over WHEN 0 THEN category WHEN 1 THEN 'average' ELSE 'micro' END AS category,
       k_candidates, m.k,
       CASE WHEN any_value(runs.stage2_sha256) IS NULL
              OR any_value(runs.late_fusion_scores) = 'standardised' THEN NULL
            WHEN over < 2 THEN avg(recall) ELSE sum(recall * n) / sum(n) END AS recall,
       CASE WHEN over < 2 THEN avg(coverage) ELSE sum(coverage * n) / sum(n) END AS coverage,
       sum(n)::BIGINT AS n, sum(pairs)::BIGINT AS pairs
FROM (SELECT *, unnest([0, 1, 2]) AS over FROM by_category WHERE k > 0) m JOIN runs USING (run_id)
GROUP BY m.run_id, over, CASE over WHEN 0 THEN category WHEN 1 THEN 'average' ELSE 'micro' END,
         k_candidates, m.k
HAVING over = 0 OR count(*) > 1;
COMMENT ON COLUMN k_curve.k_candidates IS 'per query that stage 1 would have kept';
COMMENT ON COLUMN k_curve.k IS 'places that count';
COMMENT ON COLUMN k_curve.recall IS 'a fraction, in the final order of so many candidates';
COMMENT ON COLUMN k_curve.coverage IS 'a fraction: the ceiling of the recall';
COMMENT ON COLUMN k_curve.pairs IS 'of a query and a candidate, that would have been scored';
