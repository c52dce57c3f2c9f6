-- The first tables. See prisma/schema.prisma for what they mean.

-- CreateEnum
CREATE TYPE "role" AS ENUM ('viewer', 'operator', 'owner');

-- CreateEnum
CREATE TYPE "metric_kind" AS ENUM ('number', 'boolean', 'text');

-- CreateEnum
CREATE TYPE "device_state" AS ENUM ('active', 'disabled');

-- CreateEnum
CREATE TYPE "certificate_state" AS ENUM ('active', 'retired', 'revoked');

-- CreateEnum
CREATE TYPE "command_state" AS ENUM ('pending', 'published', 'progress', 'succeeded', 'failed', 'expired');

-- CreateTable
CREATE TABLE "users" (
    "id" UUID NOT NULL,
    "email" TEXT NOT NULL,
    "name" TEXT,
    "password_hash" TEXT NOT NULL,
    "active" BOOLEAN NOT NULL DEFAULT true,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "users_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "organizations" (
    "id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "telemetry_retention_days" INTEGER NOT NULL DEFAULT 90,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "organizations_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "memberships" (
    "organization_id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "role" "role" NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "memberships_pkey" PRIMARY KEY ("organization_id","user_id")
);

-- CreateTable
CREATE TABLE "refresh_tokens" (
    "id" UUID NOT NULL,
    "family_id" UUID NOT NULL,
    "user_id" UUID NOT NULL,
    "token_hash" BYTEA NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "expires_at" TIMESTAMPTZ(3) NOT NULL,
    "used_at" TIMESTAMPTZ(3),
    "revoked_at" TIMESTAMPTZ(3),

    CONSTRAINT "refresh_tokens_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "session_keys" (
    "kid" TEXT NOT NULL,
    "public_key" BYTEA NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "not_after" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "session_keys_pkey" PRIMARY KEY ("kid")
);

-- CreateTable
CREATE TABLE "blueprints" (
    "id" UUID NOT NULL,
    "organization_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "description" TEXT,
    "wants_receipts" BOOLEAN NOT NULL DEFAULT true,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "blueprints_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "supported_components" (
    "id" UUID NOT NULL,
    "blueprint_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "description" TEXT,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "supported_components_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "metrics" (
    "id" UUID NOT NULL,
    "supported_component_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "kind" "metric_kind" NOT NULL,
    "unit" TEXT,
    "minimum" DOUBLE PRECISION,
    "maximum" DOUBLE PRECISION,

    CONSTRAINT "metrics_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "devices" (
    "id" UUID NOT NULL,
    "organization_id" UUID NOT NULL,
    "blueprint_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "serial_number" TEXT,
    "state" "device_state" NOT NULL DEFAULT 'active',
    "online" BOOLEAN NOT NULL DEFAULT false,
    "status_at" TIMESTAMPTZ(3),
    "last_seen_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "devices_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "component_instances" (
    "id" SERIAL NOT NULL,
    "device_id" UUID NOT NULL,
    "supported_component_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "component_instances_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "certificates" (
    "serial" TEXT NOT NULL,
    "device_id" UUID NOT NULL,
    "fingerprint" TEXT NOT NULL,
    "not_before" TIMESTAMPTZ(3) NOT NULL,
    "not_after" TIMESTAMPTZ(3) NOT NULL,
    "state" "certificate_state" NOT NULL DEFAULT 'active',
    "requested_by" UUID,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "retired_at" TIMESTAMPTZ(3),
    "revoked_at" TIMESTAMPTZ(3),
    "revocation_reason" TEXT,

    CONSTRAINT "certificates_pkey" PRIMARY KEY ("serial")
);

-- CreateTable
CREATE TABLE "telemetry" (
    "component_id" INTEGER NOT NULL,
    "captured_at" TIMESTAMPTZ(3) NOT NULL,
    "metrics" JSONB NOT NULL,

    CONSTRAINT "telemetry_pkey" PRIMARY KEY ("component_id","captured_at")
) PARTITION BY RANGE ("captured_at");

-- CreateTable
CREATE TABLE "dead_letters" (
    "id" BIGSERIAL NOT NULL,
    "device_id" TEXT NOT NULL,
    "topic" TEXT NOT NULL,
    "payload" BYTEA NOT NULL,
    "reason" TEXT NOT NULL,
    "detail" TEXT NOT NULL DEFAULT '',
    "received_at" TIMESTAMPTZ(3) NOT NULL,
    "batch_id" UUID,
    "batch_index" INTEGER,

    CONSTRAINT "dead_letters_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "telemetry_counts" (
    "device_id" TEXT NOT NULL,
    "hour" TIMESTAMPTZ(3) NOT NULL,
    "received" BIGINT NOT NULL DEFAULT 0,
    "committed" BIGINT NOT NULL DEFAULT 0,
    "duplicate" BIGINT NOT NULL DEFAULT 0,
    "dead_lettered" BIGINT NOT NULL DEFAULT 0,

    CONSTRAINT "telemetry_counts_pkey" PRIMARY KEY ("device_id","hour")
);

-- CreateTable
CREATE TABLE "commands" (
    "id" UUID NOT NULL,
    "device_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "arguments" JSONB NOT NULL DEFAULT '{}',
    "state" "command_state" NOT NULL DEFAULT 'pending',
    "result" JSONB,
    "error" TEXT,
    "requested_by" UUID,
    "idempotency_key" TEXT,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "expires_at" TIMESTAMPTZ(3) NOT NULL,
    "published_at" TIMESTAMPTZ(3),
    "responded_at" TIMESTAMPTZ(3),

    CONSTRAINT "commands_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "audit" (
    "id" BIGSERIAL NOT NULL,
    "organization_id" UUID,
    "actor_kind" TEXT NOT NULL,
    "actor_id" TEXT,
    "action" TEXT NOT NULL,
    "subject_kind" TEXT NOT NULL,
    "subject_id" TEXT NOT NULL,
    "detail" JSONB NOT NULL DEFAULT '{}',
    "request_id" TEXT,
    "address" TEXT,
    "occurred_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "audit_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "directory_head" (
    "id" INTEGER NOT NULL DEFAULT 1,
    "epoch" UUID NOT NULL,
    "version" BIGINT NOT NULL DEFAULT 0,

    CONSTRAINT "directory_head_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "directory_changes" (
    "version" BIGINT NOT NULL,
    "kind" TEXT NOT NULL,
    "id" TEXT NOT NULL,
    "committed_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock_timestamp(),

    CONSTRAINT "directory_changes_pkey" PRIMARY KEY ("version")
);

-- CreateIndex
CREATE UNIQUE INDEX "users_email_key" ON "users"("email");

-- CreateIndex
CREATE INDEX "memberships_user_id_idx" ON "memberships"("user_id");

-- CreateIndex
CREATE UNIQUE INDEX "refresh_tokens_token_hash_key" ON "refresh_tokens"("token_hash");

-- CreateIndex
CREATE INDEX "refresh_tokens_family_id_idx" ON "refresh_tokens"("family_id");

-- CreateIndex
CREATE INDEX "refresh_tokens_user_id_idx" ON "refresh_tokens"("user_id");

-- CreateIndex
CREATE INDEX "refresh_tokens_expires_at_idx" ON "refresh_tokens"("expires_at");

-- CreateIndex
CREATE INDEX "session_keys_not_after_idx" ON "session_keys"("not_after");

-- CreateIndex
CREATE UNIQUE INDEX "blueprints_organization_id_name_key" ON "blueprints"("organization_id", "name");

-- CreateIndex
CREATE UNIQUE INDEX "supported_components_blueprint_id_name_key" ON "supported_components"("blueprint_id", "name");

-- CreateIndex
CREATE UNIQUE INDEX "metrics_supported_component_id_name_key" ON "metrics"("supported_component_id", "name");

-- CreateIndex
CREATE INDEX "devices_organization_id_id_idx" ON "devices"("organization_id", "id");

-- CreateIndex
CREATE INDEX "devices_blueprint_id_idx" ON "devices"("blueprint_id");

-- CreateIndex
CREATE UNIQUE INDEX "devices_organization_id_name_key" ON "devices"("organization_id", "name");

-- CreateIndex
CREATE UNIQUE INDEX "devices_organization_id_serial_number_key" ON "devices"("organization_id", "serial_number");

-- CreateIndex
CREATE INDEX "component_instances_supported_component_id_idx" ON "component_instances"("supported_component_id");

-- CreateIndex
CREATE UNIQUE INDEX "component_instances_device_id_name_key" ON "component_instances"("device_id", "name");

-- CreateIndex
CREATE UNIQUE INDEX "certificates_fingerprint_key" ON "certificates"("fingerprint");

-- CreateIndex
CREATE INDEX "certificates_device_id_state_idx" ON "certificates"("device_id", "state");

-- CreateIndex
CREATE INDEX "certificates_not_after_idx" ON "certificates"("not_after");

-- CreateIndex
CREATE INDEX "dead_letters_device_id_id_idx" ON "dead_letters"("device_id", "id");

-- CreateIndex
CREATE INDEX "dead_letters_received_at_idx" ON "dead_letters"("received_at");

-- CreateIndex
CREATE UNIQUE INDEX "dead_letters_batch_id_batch_index_key" ON "dead_letters"("batch_id", "batch_index");

-- CreateIndex
CREATE INDEX "telemetry_counts_hour_idx" ON "telemetry_counts"("hour");

-- CreateIndex
CREATE INDEX "commands_device_id_created_at_idx" ON "commands"("device_id", "created_at");

-- CreateIndex
CREATE UNIQUE INDEX "commands_device_id_idempotency_key_key" ON "commands"("device_id", "idempotency_key");

-- CreateIndex
CREATE INDEX "audit_organization_id_id_idx" ON "audit"("organization_id", "id");

-- CreateIndex
CREATE INDEX "audit_subject_kind_subject_id_id_idx" ON "audit"("subject_kind", "subject_id", "id");

-- AddForeignKey
ALTER TABLE "memberships" ADD CONSTRAINT "memberships_organization_id_fkey" FOREIGN KEY ("organization_id") REFERENCES "organizations"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "memberships" ADD CONSTRAINT "memberships_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "refresh_tokens" ADD CONSTRAINT "refresh_tokens_user_id_fkey" FOREIGN KEY ("user_id") REFERENCES "users"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "blueprints" ADD CONSTRAINT "blueprints_organization_id_fkey" FOREIGN KEY ("organization_id") REFERENCES "organizations"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "supported_components" ADD CONSTRAINT "supported_components_blueprint_id_fkey" FOREIGN KEY ("blueprint_id") REFERENCES "blueprints"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "metrics" ADD CONSTRAINT "metrics_supported_component_id_fkey" FOREIGN KEY ("supported_component_id") REFERENCES "supported_components"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "devices" ADD CONSTRAINT "devices_organization_id_fkey" FOREIGN KEY ("organization_id") REFERENCES "organizations"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "devices" ADD CONSTRAINT "devices_blueprint_id_fkey" FOREIGN KEY ("blueprint_id") REFERENCES "blueprints"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "component_instances" ADD CONSTRAINT "component_instances_device_id_fkey" FOREIGN KEY ("device_id") REFERENCES "devices"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "component_instances" ADD CONSTRAINT "component_instances_supported_component_id_fkey" FOREIGN KEY ("supported_component_id") REFERENCES "supported_components"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "certificates" ADD CONSTRAINT "certificates_device_id_fkey" FOREIGN KEY ("device_id") REFERENCES "devices"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "commands" ADD CONSTRAINT "commands_device_id_fkey" FOREIGN KEY ("device_id") REFERENCES "devices"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- What Prisma cannot say.

ALTER TABLE "users" ADD CONSTRAINT "users_email_lower" CHECK ("email" = lower("email") AND length("email") BETWEEN 3 AND 254);
ALTER TABLE "organizations" ADD CONSTRAINT "organizations_retention" CHECK ("telemetry_retention_days" BETWEEN 1 AND 3650);
ALTER TABLE "refresh_tokens" ADD CONSTRAINT "refresh_tokens_hash_length" CHECK (octet_length("token_hash") = 32);
ALTER TABLE "metrics" ADD CONSTRAINT "metrics_limits" CHECK (
    ("kind" = 'number' OR ("minimum" IS NULL AND "maximum" IS NULL)) AND ("minimum" IS NULL OR "maximum" IS NULL OR "minimum" <= "maximum"));
ALTER TABLE "certificates" ADD CONSTRAINT "certificates_serial_form" CHECK ("serial" ~ '^[0-9a-f]{2}(:[0-9a-f]{2})*$');
ALTER TABLE "certificates" ADD CONSTRAINT "certificates_fingerprint_form" CHECK ("fingerprint" ~ '^[0-9a-f]{64}$');
ALTER TABLE "certificates" ADD CONSTRAINT "certificates_dates" CHECK ("not_before" < "not_after");
ALTER TABLE "certificates" ADD CONSTRAINT "certificates_revoked_when" CHECK (("state" = 'revoked') = ("revoked_at" IS NOT NULL));
ALTER TABLE "certificates" ADD CONSTRAINT "certificates_retired_when" CHECK ("state" <> 'retired' OR "retired_at" IS NOT NULL);
ALTER TABLE "telemetry_counts" ADD CONSTRAINT "telemetry_counts_hour_whole" CHECK ("hour" = date_trunc('hour', "hour", 'UTC'));
ALTER TABLE "audit" ADD CONSTRAINT "audit_actor_kind" CHECK ("actor_kind" IN ('user', 'device', 'service', 'system'));
ALTER TABLE "directory_head" ADD CONSTRAINT "directory_head_single" CHECK ("id" = 1);
ALTER TABLE "directory_changes" ADD CONSTRAINT "directory_changes_kind" CHECK (
    "kind" IN ('device', 'user', 'session_key', 'removed_device', 'removed_user', 'revoked_certificate'));

INSERT INTO "directory_head" ("id", "epoch", "version") VALUES (1, gen_random_uuid(), 0);

-- Makes the partition of one day (UTC) when it is not there. True: it was made now.
-- The table is made first and attached then: ATTACH blocks neither reads nor writes of the other partitions, while
-- CREATE TABLE ... PARTITION OF would wait for every running statement and hold up all that come after it.
CREATE FUNCTION ensure_telemetry_partition("day" date) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    partition_name text := 'telemetry_' || to_char("day", 'YYYYMMDD');
    starts_at timestamptz := "day"::timestamp AT TIME ZONE 'UTC';
    ends_at timestamptz := ("day" + 1)::timestamp AT TIME ZONE 'UTC';
BEGIN
    IF to_regclass(partition_name) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('ensure_telemetry_partition'));
    IF to_regclass(partition_name) IS NOT NULL THEN
        RETURN false;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE telemetry INCLUDING ALL)', partition_name);
    EXECUTE format('ALTER TABLE telemetry ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', partition_name, starts_at, ends_at);
    RETURN true;
END;
$$;
