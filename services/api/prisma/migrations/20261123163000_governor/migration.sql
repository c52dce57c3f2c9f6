-- The rate of the devices' listener that the broker is configured with: api lowers and raises it below that. One row.
CREATE TABLE "governor_memory" (
    "id" INTEGER NOT NULL DEFAULT 1,
    "configured" INTEGER NOT NULL,

    CONSTRAINT "governor_memory_pkey" PRIMARY KEY ("id")
);
ALTER TABLE "governor_memory" ADD CONSTRAINT "governor_memory_single" CHECK ("id" = 1 AND "configured" > 0);
