-- Deletes a deck; its cards and what students did with them go along. Parameters: deck_id.
DELETE FROM decks WHERE id = %(deck_id)s
