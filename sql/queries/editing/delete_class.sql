-- Deletes a class; its decks, their cards and what students did with them go along. Parameters: class_id.
DELETE FROM classes WHERE id = %(class_id)s
