-- Deletes everybody's progress on cards; a trigger takes it out of the figures of each student, once. Parameters:
-- flashcard_ids.
DELETE FROM user_card_progress WHERE flashcard_id = ANY(%(flashcard_ids)s::uuid[])
