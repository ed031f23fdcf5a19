-- A user's published cards of a class, counted by deck and mastery: the counters of the published decks, less the
-- user's cards that are hidden in them. Parameters: user_id, class_id.
SELECT d.id AS deck_id, counted.mastery_status, counted.cards
  FROM decks AS d
  JOIN user_deck_stats AS s ON s.user_id = %(user_id)s AND s.deck_id = d.id
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE p.mastery_status = 'new') AS new_cards,
              count(*) FILTER (WHERE p.mastery_status = 'learning') AS learning_cards,
              count(*) FILTER (WHERE p.mastery_status = 'mastered') AS mastered_cards
         FROM flashcards AS f
         JOIN user_card_progress AS p ON p.user_id = s.user_id AND p.flashcard_id = f.id
        WHERE f.deck_id = d.id AND NOT f.is_published
       ) AS hidden
 CROSS JOIN LATERAL (
       VALUES ('new', s.new_cards - hidden.new_cards),
              ('learning', s.learning_cards - hidden.learning_cards),
              ('mastered', s.mastered_cards - hidden.mastered_cards)
       ) AS counted (mastery_status, cards)
 WHERE d.class_id = %(class_id)s AND d.is_published AND counted.cards > 0
