-- The cards of decks, published or not. Parameters: deck_ids.
SELECT id FROM flashcards WHERE deck_id = ANY(%(deck_ids)s::uuid[])
