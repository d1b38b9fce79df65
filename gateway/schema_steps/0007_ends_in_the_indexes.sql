-- The end as a last column: which of the events before a range reach into it is then seen in the index, without their rows.
DROP INDEX event_by_brand_and_start;
DROP INDEX event_by_desk_and_start;
DROP INDEX event_by_creator_and_start;
DROP INDEX participant_by_manager_and_start;

CREATE INDEX event_by_brand_and_start ON calendar_event (brand, start_time, id, end_time);
CREATE INDEX event_by_desk_and_start ON calendar_event (brand, desk, start_time, id, end_time);
CREATE INDEX event_by_creator_and_start ON calendar_event (created_by, start_time, id, end_time);
CREATE INDEX participant_by_manager_and_start ON calendar_participant (manager_id, start_time, event_id, end_time);
