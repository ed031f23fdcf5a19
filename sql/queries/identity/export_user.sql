-- Everything that is kept of a user, as the text of one JSON object; as of one moment. Of secrets it says only that they
-- are there. What is counted or worked out from the rest (figures by deck) is left out. Parameters: user_id.
SELECT json_build_object(
    'account', json_build_object(
        'id', u.id, 'email', u.email, 'name', u.name, 'role', u.role, 'plan', u.plan, 'timeZone', u.time_zone,
        'hasPassword', u.password_hash IS NOT NULL, 'issuer', u.external_issuer, 'subject', u.external_subject,
        'createdAt', to_char(u.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        'updatedAt', to_char(u.updated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')),
    'stats', (
        SELECT json_build_object(
            'newCards', s.new_cards, 'learningCards', s.learning_cards, 'masteredCards', s.mastered_cards,
            'totalStudyTime', s.total_study_time_seconds, 'studyStreakDays', s.study_streak_days,
            'lastActiveDate', s.last_active_date)
          FROM user_stats AS s WHERE s.user_id = u.id),
    'signIns', (
        SELECT coalesce(json_agg(json_build_object(
            'family', t.family_id,
            'createdAt', to_char(t.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
            'expiresAt', to_char(t.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
            'usedAt', to_char(t.used_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
            'revokedAt', to_char(t.revoked_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
            ORDER BY t.created_at, t.id), '[]')
          FROM refresh_tokens AS t WHERE t.user_id = u.id),
    'passwordReset', (
        SELECT json_build_object(
            'expiresAt', to_char(r.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
          FROM password_resets AS r WHERE r.user_id = u.id),
    'progress', (
        SELECT coalesce(json_agg(json_build_object(
            'flashcardId', p.flashcard_id, 'confidenceLevel', p.confidence_level, 'masteryStatus', p.mastery_status,
            'timesSeen', p.times_seen,
            'lastSeen', to_char(p.last_seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
            'nextReviewDate', to_char(p.next_review_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
            'createdAt', to_char(p.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
            ORDER BY p.flashcard_id), '[]')
          FROM user_card_progress AS p WHERE p.user_id = u.id),
    'ratings', (
        SELECT coalesce(json_agg(json_build_object(
            'flashcardId', l.flashcard_id, 'confidenceLevel', l.confidence_level, 'responseTime', l.response_time_ms,
            'ratedAt', to_char(l.rated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
            ORDER BY l.rated_at, l.id), '[]')
          FROM review_log AS l WHERE l.user_id = u.id),
    'memory', (
        SELECT coalesce(json_agg(json_build_object(
            'flashcardId', m.flashcard_id, 'stability', m.stability, 'difficulty', m.difficulty, 'state', m.state,
            'step', m.step, 'reviews', m.reviews,
            'dueAt', to_char(m.due_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
            'lastReviewAt', to_char(m.last_review_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
            ORDER BY m.flashcard_id), '[]')
          FROM memory_states AS m WHERE m.user_id = u.id),
    'sessions', (
        SELECT coalesce(json_agg(json_build_object(
            'id', s.id, 'cardsStudied', s.cards_studied, 'studyDuration', s.duration_seconds,
            'averageConfidence', s.average_confidence,
            'startedAt', to_char(s.started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
            'endedAt', to_char(s.ended_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
            'deckIds', (SELECT coalesce(json_agg(d.deck_id ORDER BY d.deck_id), '[]')
                          FROM study_session_decks AS d WHERE d.session_id = s.id),
            'ratings', (
                SELECT coalesce(json_agg(json_build_object(
                    'flashcardId', c.flashcard_id, 'confidenceLevel', c.confidence_level,
                    'responseTime', c.response_time_ms,
                    'ratedAt', to_char(c.rated_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
                    ORDER BY c.id), '[]')
                  FROM session_cards AS c WHERE c.session_id = s.id))
            ORDER BY s.started_at, s.id), '[]')
          FROM study_sessions AS s WHERE s.user_id = u.id),
    'bookmarks', (
        SELECT coalesce(json_agg(json_build_object(
            'flashcardId', b.flashcard_id,
            'createdAt', to_char(b.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
            ORDER BY b.created_at, b.flashcard_id), '[]')
          FROM bookmarks AS b WHERE b.user_id = u.id),
    'activeDays', (
        SELECT coalesce(json_agg(json_build_object(
            'day', a.day,
            'firstAt', to_char(a.first_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
            ORDER BY a.day), '[]')
          FROM user_active_days AS a WHERE a.user_id = u.id),
    'idempotencyKeys', (
        SELECT coalesce(json_agg(json_build_object(
            'key', k.key, 'status', k.status, 'answer', convert_from(k.body, 'UTF8'),
            'createdAt', to_char(k.created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
            ORDER BY k.created_at, k.key), '[]')
          FROM idempotency_keys AS k WHERE k.user_id = u.id)
)::text AS document
  FROM users AS u
 WHERE u.id = %(user_id)s
