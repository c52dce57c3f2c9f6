-- What the authorizer decided: every connection, and everything that was refused.
CREATE TABLE "admissions" (
    "id" BIGSERIAL NOT NULL,
    "at" TIMESTAMPTZ(3) NOT NULL,
    "count" INTEGER NOT NULL DEFAULT 1,
    "action" TEXT NOT NULL,
    "allowed" BOOLEAN NOT NULL,
    "reason" TEXT NOT NULL,
    "rule" TEXT,
    "class_name" TEXT,
    "subject_id" TEXT,
    "client_id" TEXT,
    "certificate_serial" TEXT,
    "peer_address" TEXT,
    "zone" TEXT,
    "topic" TEXT,
    "device_id" UUID,
    "organization_id" UUID,
    "batch_id" UUID NOT NULL,
    "batch_index" INTEGER NOT NULL,

    CONSTRAINT "admissions_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "admissions_action" CHECK ("action" IN ('connect', 'publish', 'subscribe')),
    CONSTRAINT "admissions_count" CHECK ("count" > 0)
);
CREATE UNIQUE INDEX "admissions_batch_id_batch_index_key" ON "admissions"("batch_id", "batch_index");
CREATE INDEX "admissions_device_id_id_idx" ON "admissions"("device_id", "id");
CREATE INDEX "admissions_organization_id_id_idx" ON "admissions"("organization_id", "id");
CREATE INDEX "admissions_at_idx" ON "admissions"("at");

-- The first connection with a new certificate is what retires the one before it.
ALTER TABLE "certificates" ADD COLUMN "first_seen_at" TIMESTAMPTZ(3), ADD COLUMN "last_seen_at" TIMESTAMPTZ(3);
