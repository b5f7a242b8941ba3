-- Every query's candidates in the run's last order: of a run of stage 1 alone, stage 1's.
CREATE VIEW final_rankings AS
SELECT run_id, query_id, pool, image_id, stage1_rank, stage1_score, stage2_score, rank
FROM rankings
UNION ALL
SELECT c.run_id, c.query_id, c.pool, c.image_id, c.stage1_rank, c.stage1_score, NULL, c.stage1_rank
FROM candidates c JOIN runs USING (run_id) WHERE runs.stage2_sha256 IS NULL;

-- What kind of query each is. Words are what white space parts. A negation is one of the words below,
-- or ends in n't. Changes are the clauses that commas, semicolons, full stops, &, +, "and" and "but"
-- part: two captions are two at least. A question is ambiguous when the same reference and text are
-- asked with other targets, too. A target has a copy when another image of the gallery, no target
-- itself, has the same bytes; of an analysed run, the cosine tells how near the nearest is. Without
-- labels, what tells of targets is NULL.
CREATE VIEW query_traits AS
WITH questions AS (
    SELECT run_id, reference_id, text, other_text, count(DISTINCT list_sort(targets)) AS answers
    FROM queries GROUP BY ALL
),
copied AS (
    SELECT DISTINCT q.run_id, q.query_id
    FROM (SELECT run_id, query_id, category, targets, unnest(recall_targets) AS image_id
          FROM queries) q
    JOIN galleries g USING (run_id, category)
    JOIN gallery_members m USING (run_id, gallery, image_id)
    JOIN gallery_members other ON other.run_id = q.run_id AND other.gallery = g.gallery
        AND other.sha256 = m.sha256 AND NOT list_contains(q.targets, other.image_id)
)
SELECT q.run_id, q.query_id, q.category,
       len(regexp_extract_all(q.text, '\S+'))::INTEGER AS words,
       regexp_matches(lower(q.text), '\b(no|not|non|none|never|neither|nor|nothing|without|lack|lacks|lacking|minus|except|cannot)\b|n[''’]t\b')
           AS has_negation,
       len(regexp_extract_all(
           regexp_replace(lower(q.text), ',|;|\.(\s|$)|&|\+|\b(and|but)\b', '|', 'g'),
           '[^|]*[^|\s][^|]*'
       ))::INTEGER AS changes,
       len(q.targets)::INTEGER AS targets,
       CASE WHEN q.targets IS NOT NULL THEN a.answers > 1 END AS is_ambiguous,
       CASE WHEN q.targets IS NOT NULL THEN c.query_id IS NOT NULL END AS target_has_copy,
       p.target_neighbour_cosine
FROM queries q
JOIN questions a ON a.run_id = q.run_id AND a.reference_id = q.reference_id AND a.text = q.text
    AND a.other_text IS NOT DISTINCT FROM q.other_text
LEFT JOIN copied c ON c.run_id = q.run_id AND c.query_id = q.query_id
LEFT JOIN probes p ON p.run_id = q.run_id AND p.query_id = q.query_id;

-- The scored images of labelled queries by kind. That is target; kept, the other candidates (hard
-- negatives); or, of an analysed run, dropped: a sample of what stage 1 has not kept.
CREATE VIEW pair_kinds AS
SELECT f.run_id, f.query_id, q.category, f.image_id,
       CASE WHEN list_contains(q.targets, f.image_id) THEN 'target' ELSE 'kept' END AS kind,
       f.stage1_score, f.stage2_score
FROM final_rankings f JOIN queries q USING (run_id, query_id)
WHERE f.pool = 'gallery' AND q.targets IS NOT NULL
UNION ALL
SELECT d.run_id, d.query_id, q.category, d.image_id, 'dropped', d.stage1_score, d.stage2_score
FROM dropped_pairs d JOIN queries q USING (run_id, query_id)
WHERE NOT list_contains(q.targets, d.image_id);

-- How often a query's target scores higher than its negatives, of each kind. Of queries whose target
-- is a candidate; equal counts one half (the area under the query's ROC curve).
CREATE VIEW separation AS
SELECT t.run_id, t.query_id, t.category, n.kind AS negatives,
       avg(CASE WHEN t.stage1_score > n.stage1_score THEN 1.0
                WHEN t.stage1_score = n.stage1_score THEN 0.5
                WHEN t.stage1_score < n.stage1_score THEN 0 END) AS stage1,
       avg(CASE WHEN t.stage2_score > n.stage2_score THEN 1.0
                WHEN t.stage2_score = n.stage2_score THEN 0.5
                WHEN t.stage2_score < n.stage2_score THEN 0 END) AS stage2,
       count(*) AS pairs
FROM pair_kinds t JOIN pair_kinds n USING (run_id, query_id)
WHERE t.kind = 'target' AND n.kind <> 'target'
GROUP BY ALL;

-- How far the stages agree about each query's candidates. Told by Pearson's correlation of their
-- scores and Spearman's of their orders; NULL of a single candidate, or where all score the same.
CREATE VIEW stage_agreement AS
WITH ordered AS (
    SELECT run_id, query_id, stage1_score::DOUBLE AS score1, stage2_score::DOUBLE AS score2,
           stage1_rank,
           row_number() OVER (PARTITION BY run_id, query_id ORDER BY stage2_score DESC, rank)
               AS stage2_rank
    FROM rankings WHERE pool = 'gallery'
)
SELECT run_id, query_id, count(*) AS candidates,
       CASE WHEN min(score1) < max(score1) AND min(score2) < max(score2)
            THEN corr(score1, score2) END AS pearson,
       CASE WHEN min(score1) < max(score1) AND min(score2) < max(score2)
            THEN corr(stage1_rank, stage2_rank) END AS spearman
FROM ordered GROUP BY ALL;

-- Of how many queries each usable image of a gallery is among the first. Counted are the first 10 (of
-- stage 1, of the run's last order), the first, and the first though no target. A hub is among the
-- first 10 more often than the mean of its gallery's images and two standard deviations.
CREATE VIEW occurrences AS
WITH counted AS (
    SELECT f.run_id, g.gallery, f.image_id,
           count(*) FILTER (f.stage1_rank <= 10) AS stage1_first_10,
           count(*) FILTER (f.rank <= 10) AS first_10,
           count(*) FILTER (f.rank = 1) AS first,
           count(*) FILTER (f.rank = 1 AND NOT list_contains(q.targets, f.image_id)) AS wrong_first
    FROM final_rankings f
    JOIN queries q USING (run_id, query_id)
    JOIN galleries g USING (run_id, category)
    WHERE f.pool = 'gallery' AND least(f.stage1_rank, f.rank) <= 10
    GROUP BY ALL
),
every AS (
    SELECT m.run_id, m.gallery, m.image_id, coalesce(c.stage1_first_10, 0) AS stage1_first_10,
           coalesce(c.first_10, 0) AS first_10, coalesce(c.first, 0) AS first,
           coalesce(c.wrong_first, 0) AS wrong_first
    FROM gallery_members m LEFT JOIN counted c USING (run_id, gallery, image_id)
    WHERE m.path IS NOT NULL
)
SELECT *, first_10 > avg(first_10) OVER of_gallery + 2 * stddev_pop(first_10) OVER of_gallery AS is_hub
FROM every WINDOW of_gallery AS (PARTITION BY run_id, gallery);

COMMENT ON COLUMN query_traits.words IS 'of the text';
COMMENT ON COLUMN query_traits.has_negation IS 'whether the text says no, not, without and the like';
COMMENT ON COLUMN query_traits.changes IS 'clauses of the text';
COMMENT ON COLUMN query_traits.targets IS 'how many';
COMMENT ON COLUMN query_traits.is_ambiguous IS 'whether its question is asked with other targets, too';
COMMENT ON COLUMN query_traits.target_has_copy IS 'whether another image of the gallery has its bytes';
COMMENT ON COLUMN pair_kinds.kind IS 'target; kept: a candidate that is none; dropped: no candidate';
COMMENT ON COLUMN separation.negatives IS 'of which kind';
COMMENT ON COLUMN separation.stage1 IS 'a fraction, by the scores of stage 1';
COMMENT ON COLUMN separation.stage2 IS 'a fraction, by the scores of stage 2';
COMMENT ON COLUMN separation.pairs IS 'of a target and a negative';
COMMENT ON COLUMN stage_agreement.candidates IS 'how many';
COMMENT ON COLUMN stage_agreement.pearson IS 'of the scores, -1 to 1';
COMMENT ON COLUMN stage_agreement.spearman IS 'of the orders, -1 to 1';
COMMENT ON COLUMN occurrences.stage1_first_10 IS 'queries that have it among stage 1''s first 10';
COMMENT ON COLUMN occurrences.first_10 IS 'queries that have it among the first 10 of the last order';
COMMENT ON COLUMN occurrences.first IS 'queries that have it first';
COMMENT ON COLUMN occurrences.wrong_first IS 'queries that have it first, though it is no target';
COMMENT ON COLUMN occurrences.is_hub IS 'whether it is among the first 10 far more often than others';
