CREATE INDEX long_event_by_creator ON calendar_event (created_by, end_time)
WHERE created_by > 0 AND end_time - start_time > 604800;
