-- The counts of a batch are one row, written in its transaction and added to telemetry_counts a little later: a row per
-- device that every batch updates costs as much as the telemetry itself, and makes batches wait for each other.
CREATE TABLE "telemetry_count_batches" (
    "id" BIGSERIAL NOT NULL,
    "counts" JSONB NOT NULL,

    CONSTRAINT "telemetry_count_batches_pkey" PRIMARY KEY ("id")
);

-- What is counted up to this moment: read this, not the tables.
CREATE VIEW telemetry_counts_now AS
    SELECT device_id, hour, sum(received)::bigint AS received, sum(committed)::bigint AS committed,
           sum(duplicate)::bigint AS duplicate, sum(dead_lettered)::bigint AS dead_lettered
      FROM (SELECT device_id, hour, received, committed, duplicate, dead_lettered FROM telemetry_counts
            UNION ALL
            SELECT c ->> 0, to_timestamp((c ->> 1)::float8 / 1000), (c ->> 2)::bigint, (c ->> 3)::bigint,
                   (c ->> 4)::bigint, (c ->> 5)::bigint
              FROM telemetry_count_batches, jsonb_array_elements(counts) AS c) AS counted
     GROUP BY device_id, hour;
