-- What a batch adds beside its counts, worked on later with them: sequence numbers that came in, as
-- [deviceId, hour in epoch milliseconds, [first, last, first, last, ...]] each, and the buckets of roll-ups it changed,
-- as [componentId, [minute since the epoch, ...]] each.
ALTER TABLE "telemetry_count_batches" ADD COLUMN "sequences" JSONB, ADD COLUMN "dirty" JSONB;

-- The sequence numbers that a device has sent, by the day of receipt (UTC). A day is one range when nothing is missing.
CREATE TABLE "telemetry_sequences" (
    "device_id" TEXT NOT NULL,
    "day" DATE NOT NULL,
    "ranges" INT8MULTIRANGE NOT NULL,

    CONSTRAINT "telemetry_sequences_pkey" PRIMARY KEY ("device_id","day")
);
ALTER TABLE telemetry_sequences SET (fillfactor = 70);

-- At most so many ranges are kept of a day, those with the highest numbers: below them all counts as received. A device
-- that counts in steps of two would make a list without an end otherwise.
CREATE FUNCTION bounded_sequences("given" int8multirange) RETURNS int8multirange LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN (SELECT count(*) FROM unnest("given")) <= 500 THEN "given" ELSE
        "given" + int8multirange(int8range(lower("given"), (
            SELECT lower(r) FROM unnest("given") AS r ORDER BY r DESC OFFSET 499 LIMIT 1))) END
$$;

-- Letters that are replayed: the report as it was read, when it could be read; and what became of it.
ALTER TABLE "dead_letters"
    ADD COLUMN "organization_id" UUID,
    ADD COLUMN "report" BYTEA,
    ADD COLUMN "replayed_at" TIMESTAMPTZ(3),
    ADD COLUMN "replayed_by" UUID,
    ADD COLUMN "replay_result" TEXT;
UPDATE "dead_letters" l SET "organization_id" = d."organization_id" FROM "devices" d WHERE d."id"::text = l."device_id";
ALTER TABLE "dead_letters" ADD CONSTRAINT "dead_letters_replay" CHECK (
    ("replay_result" IS NULL) = ("replayed_at" IS NULL) AND "replay_result" IN ('committed', 'duplicate'));
CREATE INDEX "dead_letters_organization_id_id_idx" ON "dead_letters"("organization_id", "id");

ALTER TABLE "organizations"
    ADD COLUMN "dead_letter_retention_days" INTEGER NOT NULL DEFAULT 30,
    ADD COLUMN "dead_letter_max_megabytes" INTEGER NOT NULL DEFAULT 256;
ALTER TABLE "organizations" ADD CONSTRAINT "organizations_dead_letters" CHECK (
    "dead_letter_retention_days" BETWEEN 1 AND 3650 AND "dead_letter_max_megabytes" BETWEEN 1 AND 1048576);

-- Devices that said more than their budget. No foreign key: ingestion writes it, and must not wait for a device's row.
CREATE TABLE "over_budget_devices" (
    "device_id" UUID NOT NULL,
    "since" TIMESTAMPTZ(3) NOT NULL,
    "last_at" TIMESTAMPTZ(3) NOT NULL,
    "refused" BIGINT NOT NULL,

    CONSTRAINT "over_budget_devices_pkey" PRIMARY KEY ("device_id")
);
