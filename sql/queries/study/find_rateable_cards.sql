-- Which of these cards can be rated (published, in a published deck and class), each with its deck, its class and the
-- scheduler that the class is set to. Until the transaction ends they stay where they are; they are locked before
-- anything of the user's, and in the order of their ids (see 0004_counters_by_deck.sql). Parameters: flashcard_ids.
SELECT f.id, f.deck_id, d.class_id, c.scheduler
  FROM flashcards AS f
  JOIN decks AS d ON d.id = f.deck_id AND d.is_published
  JOIN classes AS c ON c.id = d.class_id AND c.is_published
 WHERE f.id = ANY(%(flashcard_ids)s::uuid[]) AND f.is_published
 ORDER BY f.id
   FOR KEY SHARE OF f
