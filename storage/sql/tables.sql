-- One row per evaluated run; every other table carries its run_id. No table has a key: DuckDB 1.0
-- cannot open a file that has one. See integrity_runs.
CREATE TABLE runs (
    run_id VARCHAR NOT NULL,
    dataset VARCHAR NOT NULL,
    split VARCHAR NOT NULL,
    protocol VARCHAR NOT NULL,
    k INTEGER NOT NULL,              -- candidates per query
    vector_index VARCHAR NOT NULL,   -- that found them: exact, or FAISS's flat, ivf, gpu
    precision VARCHAR NOT NULL,      -- in which stage 2 computed
    prior DOUBLE NOT NULL,           -- times stage 1's cosine, is part of stage 2's score; 0: none
    images INTEGER NOT NULL,         -- usable images
    queries INTEGER NOT NULL,
    problems INTEGER NOT NULL,       -- images or queries that could not be used
    gallery_images INTEGER NOT NULL, -- usable members, summed over the galleries
    gallery_missing INTEGER NOT NULL, -- members that could not be used: more than 0 is a short gallery
    gallery_sha256 VARCHAR NOT NULL, -- over the usable members' bytes and ids: see galleries
    stage1_sha256 VARCHAR NOT NULL,
    stage2_sha256 VARCHAR NOT NULL,
    created_at TIMESTAMP NOT NULL
);

-- Each gallery once, however many categories have it. The view gallery has them by category.
CREATE TABLE gallery_members (
    run_id VARCHAR NOT NULL,
    gallery VARCHAR NOT NULL,
    position INTEGER NOT NULL,       -- gallery order, the tie-break of every ranking
    image_id VARCHAR NOT NULL,
    path VARCHAR,                    -- NULL: the image could not be used, see problems
    sha256 VARCHAR,
    width INTEGER,
    height INTEGER
);

-- What was searched. sha256 is over a line "<sha256> <image_id>" per usable member, by position.
CREATE TABLE galleries (
    run_id VARCHAR NOT NULL,
    category VARCHAR NOT NULL,
    gallery VARCHAR NOT NULL,        -- its name: the first category that has it
    images INTEGER NOT NULL,         -- usable members
    missing INTEGER NOT NULL,        -- members that could not be used
    sha256 VARCHAR NOT NULL
);

CREATE TABLE queries (
    run_id VARCHAR NOT NULL,
    query_id VARCHAR NOT NULL,
    category VARCHAR NOT NULL,
    reference_id VARCHAR NOT NULL,
    text VARCHAR NOT NULL,
    targets VARCHAR[],               -- NULL: a query without label
    recall_targets VARCHAR[],        -- those that count for recall: all, or the first alone
    subset VARCHAR[],                -- members of the second pool, NULL where there is none
    other_text VARCHAR,              -- the captions in the other order, where both are asked
    target_stage1_rank INTEGER       -- of the best target, in the whole gallery
);

CREATE TABLE target_ranks (
    run_id VARCHAR NOT NULL,
    query_id VARCHAR NOT NULL,
    image_id VARCHAR NOT NULL,       -- a target
    stage1_rank INTEGER NOT NULL     -- in the whole gallery
);

CREATE TABLE candidates (
    run_id VARCHAR NOT NULL,
    query_id VARCHAR NOT NULL,
    pool VARCHAR NOT NULL,
    image_id VARCHAR NOT NULL,
    stage1_rank INTEGER NOT NULL,
    stage1_score FLOAT NOT NULL
);

CREATE TABLE rankings (
    run_id VARCHAR NOT NULL,
    query_id VARCHAR NOT NULL,
    pool VARCHAR NOT NULL,
    image_id VARCHAR NOT NULL,
    stage1_rank INTEGER NOT NULL,
    stage1_score FLOAT NOT NULL,
    stage2_score FLOAT NOT NULL,
    rank INTEGER NOT NULL            -- the final order, 1-based
);

CREATE TABLE metrics (
    run_id VARCHAR NOT NULL,
    protocol VARCHAR NOT NULL,
    category VARCHAR NOT NULL,       -- 'average': macro over categories; 'micro': over queries
    stage VARCHAR NOT NULL,          -- stage1, stage2, or gain (paired difference)
    pool VARCHAR NOT NULL,
    metric VARCHAR NOT NULL,
    k INTEGER NOT NULL,
    value DOUBLE NOT NULL,           -- a fraction
    ci_low DOUBLE NOT NULL,          -- 95 % interval
    ci_high DOUBLE NOT NULL,
    n INTEGER NOT NULL,
    gallery_images INTEGER NOT NULL, -- of the category; of an average, of all galleries together
    gallery_missing INTEGER NOT NULL,
    gallery_sha256 VARCHAR NOT NULL
);

CREATE TABLE problems (
    run_id VARCHAR NOT NULL,
    item VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,
    message VARCHAR NOT NULL
);
