-- Deletes a card; what students did with it goes along. Parameters: flashcard_id.
DELETE FROM flashcards WHERE id = %(flashcard_id)s
