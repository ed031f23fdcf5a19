-- A page of a user's sessions of one deck, newest first. Parameters: user_id, deck_id, before_started, before_id,
-- page_size.
SELECT s.id, s.started_at, s.ended_at, s.cards_studied, s.duration_seconds, s.average_confidence
  FROM study_session_decks AS sd
  JOIN study_sessions AS s ON s.id = sd.session_id
 WHERE sd.user_id = %(user_id)s AND sd.deck_id = %(deck_id)s
   AND (s.started_at, s.id) < (%(before_started)s::timestamptz, %(before_id)s::uuid)
 ORDER BY s.started_at DESC, s.id DESC
 LIMIT %(page_size)s
