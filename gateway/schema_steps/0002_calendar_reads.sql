ALTER TABLE calendar_participant ADD COLUMN start_time bigint;
ALTER TABLE calendar_participant ADD COLUMN end_time bigint;
UPDATE calendar_participant AS participant SET start_time = event.start_time, end_time = event.end_time
FROM calendar_event AS event WHERE event.id = participant.event_id;
ALTER TABLE calendar_participant ALTER COLUMN start_time SET NOT NULL;
ALTER TABLE calendar_participant ALTER COLUMN end_time SET NOT NULL;

CREATE INDEX event_by_brand_and_start ON calendar_event (brand, start_time, id);
CREATE INDEX event_by_desk_and_start ON calendar_event (brand, desk, start_time, id);
CREATE INDEX event_by_creator_and_start ON calendar_event (created_by, start_time, id);
CREATE INDEX event_by_customer ON calendar_event (customer_id, start_time, id) WHERE customer_id <> 0;
CREATE INDEX event_by_lead ON calendar_event (lead_id, start_time, id) WHERE lead_id <> 0;
CREATE INDEX event_by_login ON calendar_event (login, start_time, id) WHERE login <> 0;
CREATE INDEX long_event_by_end ON calendar_event (brand, end_time) WHERE end_time - start_time > 604800;
CREATE INDEX participant_by_manager_and_start ON calendar_participant (manager_id, start_time, event_id);
CREATE INDEX long_participant_by_end ON calendar_participant (manager_id, end_time) WHERE end_time - start_time > 604800;

CREATE STATISTICS event_length ON (end_time - start_time) FROM calendar_event;
CREATE STATISTICS participant_length ON (end_time - start_time) FROM calendar_participant;
-- Only where there are rows: a table known to be empty is read whole by each check of a foreign key until it is analyzed again.
DO $$ BEGIN
    IF EXISTS (SELECT FROM calendar_event) THEN
        ANALYZE calendar_event, calendar_participant;
    END IF;
END $$;
