-- Roll-ups of numbers (and of booleans as 0 and 1): rows per component, bucket and metric. In this order the key serves
-- reading a window and removing what is old.
CREATE TABLE "telemetry_rollups_1m" (
    "component_id" INTEGER NOT NULL,
    "bucket" TIMESTAMPTZ(3) NOT NULL,
    "metric" TEXT NOT NULL,
    "count" INTEGER NOT NULL,
    "minimum" DOUBLE PRECISION NOT NULL,
    "maximum" DOUBLE PRECISION NOT NULL,
    "sum" DOUBLE PRECISION NOT NULL,
    "last" DOUBLE PRECISION NOT NULL,

    CONSTRAINT "telemetry_rollups_1m_pkey" PRIMARY KEY ("component_id","bucket","metric")
);

CREATE TABLE "telemetry_rollups_1h" (
    "component_id" INTEGER NOT NULL,
    "bucket" TIMESTAMPTZ(3) NOT NULL,
    "metric" TEXT NOT NULL,
    "count" INTEGER NOT NULL,
    "minimum" DOUBLE PRECISION NOT NULL,
    "maximum" DOUBLE PRECISION NOT NULL,
    "sum" DOUBLE PRECISION NOT NULL,
    "last" DOUBLE PRECISION NOT NULL,

    CONSTRAINT "telemetry_rollups_1h_pkey" PRIMARY KEY ("component_id","bucket","metric")
);
-- An hour is written again with each of its minutes.
ALTER TABLE telemetry_rollups_1h SET (fillfactor = 50);

-- Minutes (since the epoch) whose roll-ups are out of date.
CREATE TABLE "telemetry_rollup_queue" (
    "component_id" INTEGER NOT NULL,
    "minute" INTEGER NOT NULL,

    CONSTRAINT "telemetry_rollup_queue_pkey" PRIMARY KEY ("component_id","minute")
);
CREATE INDEX "telemetry_rollup_queue_minute_idx" ON "telemetry_rollup_queue"("minute");
