-- What a user has of the published cards of some decks, by mastery, rows without cards left out: the counters of the decks,
-- less the user's cards that are hidden in them. Asked with every rating (record_activity). A function, because a session
-- keeps its plan: planning took twice as long as the rest of the statement. Only plans along an index are allowed, as
-- in 0004_counters_by_deck.sql.
CREATE FUNCTION count_published_cards(of_user uuid, of_decks uuid[])
RETURNS TABLE (deck_id uuid, mastery_status text, cards bigint) LANGUAGE plpgsql STABLE
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN QUERY
    SELECT s.deck_id, counted.mastery_status, counted.cards
      FROM user_deck_stats AS s
     CROSS JOIN LATERAL (
           SELECT count(*) FILTER (WHERE p.mastery_status = 'new') AS new_cards,
                  count(*) FILTER (WHERE p.mastery_status = 'learning') AS learning_cards,
                  count(*) FILTER (WHERE p.mastery_status = 'mastered') AS mastered_cards
             FROM flashcards AS f
             JOIN user_card_progress AS p ON p.user_id = s.user_id AND p.flashcard_id = f.id
            WHERE f.deck_id = s.deck_id AND NOT f.is_published
           ) AS hidden
     CROSS JOIN LATERAL (
           VALUES ('new', s.new_cards - hidden.new_cards),
                  ('learning', s.learning_cards - hidden.learning_cards),
                  ('mastered', s.mastered_cards - hidden.mastered_cards)
           ) AS counted (mastery_status, cards)
     WHERE s.user_id = of_user AND s.deck_id = ANY(of_decks) AND counted.cards > 0;
END
$$;
