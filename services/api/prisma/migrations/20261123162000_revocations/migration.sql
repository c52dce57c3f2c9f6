-- The plan of each revocation, written before its first step, and what became of it.
CREATE TYPE "revocation_kind" AS ENUM ('certificate', 'disable', 'delete');

CREATE TABLE "revocations" (
    "id" UUID NOT NULL,
    "organization_id" UUID NOT NULL,
    "device_id" UUID NOT NULL,
    "kind" "revocation_kind" NOT NULL,
    "serials" TEXT[],
    "reason" TEXT,
    "requested_by" JSONB NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "vault_at" TIMESTAMPTZ(3),
    "database_at" TIMESTAMPTZ(3),
    "directory_version" BIGINT,
    "authorizers_at" TIMESTAMPTZ(3),
    "kick_at" TIMESTAMPTZ(3),
    "audit_at" TIMESTAMPTZ(3),
    "second_kick_at" TIMESTAMPTZ(3),
    "finished_at" TIMESTAMPTZ(3),
    "failures" INTEGER NOT NULL DEFAULT 0,
    "failed_step" TEXT,
    "last_error" TEXT,
    "next_try_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "revocations_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "revocations_version" CHECK (("database_at" IS NULL) = ("directory_version" IS NULL)),
    CONSTRAINT "revocations_finished" CHECK ("finished_at" IS NULL OR ("vault_at" IS NOT NULL AND "database_at" IS NOT NULL
        AND "authorizers_at" IS NOT NULL AND "kick_at" IS NOT NULL AND "audit_at" IS NOT NULL AND "second_kick_at" IS NOT NULL))
);
CREATE INDEX "revocations_finished_at_next_try_at_idx" ON "revocations"("finished_at", "next_try_at");
CREATE INDEX "revocations_organization_id_id_idx" ON "revocations"("organization_id", "id");
CREATE INDEX "revocations_device_id_idx" ON "revocations"("device_id");
