-- Renewal: what was handed out can be handed out again, and the first connection with a new certificate retires the old.
ALTER TABLE "certificates" ADD COLUMN "pem" TEXT, ADD COLUMN "public_key_hash" TEXT, ADD COLUMN "supersedes" TEXT;
CREATE INDEX "certificates_first_seen_at_idx" ON "certificates"("first_seen_at");

-- Enrollment: devices that make themselves known with a token of their organization.
CREATE TABLE "enrollment_tokens" (
    "id" UUID NOT NULL,
    "organization_id" UUID NOT NULL,
    "blueprint_id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "token_hash" BYTEA NOT NULL,
    "maximum_uses" INTEGER NOT NULL DEFAULT 1,
    "uses" INTEGER NOT NULL DEFAULT 0,
    "serial_numbers" TEXT[],
    "expires_at" TIMESTAMPTZ(3) NOT NULL,
    "revoked_at" TIMESTAMPTZ(3),
    "created_by" UUID,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "enrollment_tokens_pkey" PRIMARY KEY ("id"),
    CONSTRAINT "enrollment_tokens_uses" CHECK ("uses" BETWEEN 0 AND "maximum_uses"),
    CONSTRAINT "enrollment_tokens_hash" CHECK (octet_length("token_hash") = 32)
);
CREATE UNIQUE INDEX "enrollment_tokens_token_hash_key" ON "enrollment_tokens"("token_hash");
CREATE INDEX "enrollment_tokens_organization_id_id_idx" ON "enrollment_tokens"("organization_id", "id");
CREATE INDEX "enrollment_tokens_blueprint_id_idx" ON "enrollment_tokens"("blueprint_id");
ALTER TABLE "enrollment_tokens" ADD CONSTRAINT "enrollment_tokens_organization_id_fkey"
    FOREIGN KEY ("organization_id") REFERENCES "organizations"("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "enrollment_tokens" ADD CONSTRAINT "enrollment_tokens_blueprint_id_fkey"
    FOREIGN KEY ("blueprint_id") REFERENCES "blueprints"("id") ON DELETE CASCADE ON UPDATE CASCADE;

CREATE TABLE "enrollments" (
    "device_id" UUID NOT NULL,
    "token_id" UUID NOT NULL,
    "serial_number" TEXT NOT NULL,
    "public_key_hash" TEXT NOT NULL,
    "certificate_serial" TEXT NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "enrollments_pkey" PRIMARY KEY ("device_id")
);
CREATE UNIQUE INDEX "enrollments_token_id_serial_number_key" ON "enrollments"("token_id", "serial_number");
ALTER TABLE "enrollments" ADD CONSTRAINT "enrollments_token_id_fkey"
    FOREIGN KEY ("token_id") REFERENCES "enrollment_tokens"("id") ON DELETE CASCADE ON UPDATE CASCADE;
ALTER TABLE "enrollments" ADD CONSTRAINT "enrollments_device_id_fkey"
    FOREIGN KEY ("device_id") REFERENCES "devices"("id") ON DELETE CASCADE ON UPDATE CASCADE;
