-- A session over decks. Parameters: user_id, deck_ids.
WITH started AS (
    INSERT INTO study_sessions (user_id) VALUES (%(user_id)s) RETURNING id, user_id, started_at
), chosen AS (
    INSERT INTO study_session_decks (session_id, user_id, deck_id)
    SELECT started.id, started.user_id, d.deck_id
      FROM started CROSS JOIN unnest(%(deck_ids)s::uuid[]) AS d (deck_id)
)
SELECT id, started_at FROM started
