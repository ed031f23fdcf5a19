-- A deck that is about to change, or whose cards are: until the transaction ends nobody else changes it, and its cards
-- neither come nor go, for which lock_decks_of_card needs a share of the lock. Study sessions may still name it.
-- Parameters: deck_id.
SELECT id, class_id, name, description, sort_order, is_published, created_at, updated_at
  FROM decks
 WHERE id = %(deck_id)s
   FOR NO KEY UPDATE
