-- A page of a user's sessions, newest first. Parameters: user_id, before_started, before_id (the last row of the page
-- before, or infinity), page_size.
SELECT s.id, s.started_at, s.ended_at, s.cards_studied, s.duration_seconds, s.average_confidence
  FROM study_sessions AS s
 WHERE s.user_id = %(user_id)s
   AND (s.started_at, s.id) < (%(before_started)s::timestamptz, %(before_id)s::uuid)
 ORDER BY s.started_at DESC, s.id DESC
 LIMIT %(page_size)s
