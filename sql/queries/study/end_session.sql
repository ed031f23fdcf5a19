-- Ends a running session and counts it from its ratings; no row where it is another user's, unknown or ended.
-- Parameters: session_id, user_id.
UPDATE study_sessions AS s
   SET ended_at = now(),
       cards_studied = counted.cards_studied,
       duration_seconds = round(extract(epoch FROM now() - s.started_at)),
       average_confidence = counted.average_confidence
  FROM (SELECT count(DISTINCT flashcard_id) AS cards_studied, round(avg(confidence_level), 2) AS average_confidence
          FROM session_cards
         WHERE session_id = %(session_id)s) AS counted
 WHERE s.id = %(session_id)s AND s.user_id = %(user_id)s AND s.ended_at IS NULL
RETURNING s.id, s.cards_studied, s.duration_seconds, s.average_confidence
