-- Ingestion keeps the hardware of devices in memory. Whatever changes it, through Prisma or by hand, tells every replica
-- of api on the channel `ares_hardware`: the id of a device, or * for all of them. Equal notifications of one
-- transaction are sent once.

CREATE FUNCTION notify_hardware_of_device() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP <> 'INSERT' THEN
        PERFORM pg_notify('ares_hardware', to_jsonb(OLD) ->> TG_ARGV[0]);
    END IF;
    IF TG_OP <> 'DELETE' THEN
        PERFORM pg_notify('ares_hardware', to_jsonb(NEW) ->> TG_ARGV[0]);
    END IF;
    RETURN NULL;
END;
$$;

CREATE FUNCTION notify_hardware() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('ares_hardware', '*');
    RETURN NULL;
END;
$$;

CREATE TRIGGER devices_notify_hardware AFTER INSERT OR DELETE OR UPDATE OF organization_id, blueprint_id ON devices
    FOR EACH ROW EXECUTE FUNCTION notify_hardware_of_device('id');
CREATE TRIGGER component_instances_notify_hardware AFTER INSERT OR DELETE OR UPDATE ON component_instances
    FOR EACH ROW EXECUTE FUNCTION notify_hardware_of_device('device_id');
CREATE TRIGGER metrics_notify_hardware AFTER INSERT OR DELETE OR UPDATE ON metrics
    FOR EACH STATEMENT EXECUTE FUNCTION notify_hardware();
CREATE TRIGGER blueprints_notify_hardware AFTER UPDATE OF wants_receipts ON blueprints
    FOR EACH STATEMENT EXECUTE FUNCTION notify_hardware();
CREATE TRIGGER organizations_notify_hardware AFTER UPDATE OF telemetry_retention_days ON organizations
    FOR EACH STATEMENT EXECUTE FUNCTION notify_hardware();

-- A count is updated with each batch of its hour: room on the page lets that happen without touching an index.
ALTER TABLE telemetry_counts SET (fillfactor = 50);
