-- The figures of a user's ended session. Parameters: session_id, user_id.
SELECT id, cards_studied, duration_seconds, average_confidence
  FROM study_sessions
 WHERE id = %(session_id)s AND user_id = %(user_id)s AND ended_at IS NOT NULL
