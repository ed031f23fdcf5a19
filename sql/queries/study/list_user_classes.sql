-- Each published class with one user's progress in it: one query, however many classes. The counters of the published
-- decks, less the user's cards that are hidden in them: no progress row of a published card is read. Parameters: user_id.
SELECT c.id AS class_id, c.name AS class_name, counted.total_cards,
       counted.new_cards + counted.learning_cards + counted.mastered_cards AS studied_cards,
       counted.new_cards, counted.learning_cards, counted.mastered_cards
  FROM classes AS c
 CROSS JOIN LATERAL (
       SELECT coalesce(sum(cards.total_cards), 0)::bigint AS total_cards,
              coalesce(sum(s.new_cards - hidden.new_cards), 0)::bigint AS new_cards,
              coalesce(sum(s.learning_cards - hidden.learning_cards), 0)::bigint AS learning_cards,
              coalesce(sum(s.mastered_cards - hidden.mastered_cards), 0)::bigint AS mastered_cards
         FROM decks AS d
        CROSS JOIN LATERAL (
              SELECT count(*) AS total_cards FROM flashcards AS f WHERE f.deck_id = d.id AND f.is_published
              ) AS cards
         LEFT JOIN user_deck_stats AS s ON s.user_id = %(user_id)s AND s.deck_id = d.id
         LEFT JOIN LATERAL (
              SELECT count(*) FILTER (WHERE p.mastery_status = 'new') AS new_cards,
                     count(*) FILTER (WHERE p.mastery_status = 'learning') AS learning_cards,
                     count(*) FILTER (WHERE p.mastery_status = 'mastered') AS mastered_cards
                FROM flashcards AS f
                JOIN user_card_progress AS p ON p.user_id = s.user_id AND p.flashcard_id = f.id
               WHERE f.deck_id = s.deck_id AND NOT f.is_published
              ) AS hidden ON true
        WHERE d.class_id = c.id AND d.is_published
       ) AS counted
 WHERE c.is_published
 ORDER BY c.sort_order, c.name, c.id
