-- A rating in one statement. Each statement of a transaction is a round trip, and is parsed and planned anew; a session
-- keeps the plans of a function. What the course's rules are (how confident is mastered, when a card comes back, which
-- day it is) the caller decides. The release before this one does not call it.

CREATE FUNCTION claim_idempotency_key(
    given_user uuid, given_key text, given_fingerprint bytea,
    OUT fingerprint bytea, OUT status smallint, OUT location text, OUT body bytea, OUT stale text[]
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
BEGIN
    WITH expired AS (
        SELECT k.user_id, k.key
          FROM idempotency_keys AS k
         WHERE k.created_at <= now() - interval '24 hours'
           AND (k.user_id, k.key) <> (given_user, given_key)
         ORDER BY k.created_at
         LIMIT 2
           FOR UPDATE SKIP LOCKED
    )
    DELETE FROM idempotency_keys AS k USING expired AS e WHERE k.user_id = e.user_id AND k.key = e.key;
    INSERT INTO idempotency_keys AS k (user_id, key, fingerprint)
    VALUES (given_user, given_key, given_fingerprint)
        ON CONFLICT (user_id, key) DO UPDATE
       SET (fingerprint, status, location, body, stale, created_at) = (
           SELECT excluded.fingerprint, NULL::smallint, NULL::text, NULL::bytea, '{}'::text[], excluded.created_at
            WHERE k.created_at <= now() - interval '24 hours'
            UNION ALL
           SELECT k.fingerprint, k.status, k.location, k.body, k.stale, k.created_at
            WHERE k.created_at > now() - interval '24 hours')
    RETURNING k.fingerprint, k.status, k.location, k.body, k.stale
         INTO claim_idempotency_key.fingerprint, claim_idempotency_key.status, claim_idempotency_key.location,
              claim_idempotency_key.body, claim_idempotency_key.stale;
END
$$;
COMMENT ON FUNCTION claim_idempotency_key(uuid, text, bytea) IS
    'Takes an Idempotency-Key for this transaction, or gives what was answered under it; an answer has a status, a key '
    'that is now the caller''s has none. Waits for the transaction that holds the key. A key lives for 24 hours; each '
    'claim deletes two expired ones of anybody, twice as many as it adds.';

CREATE FUNCTION describe_progress(progress user_card_progress) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT format(
        '{"flashcardId":"%s","confidenceLevel":%s,"masteryStatus":"%s","timesSeen":%s,'
        '"lastSeenDate":"%s","nextReviewDate":"%s"}',
        progress.flashcard_id, progress.confidence_level, progress.mastery_status, progress.times_seen,
        to_char(progress.last_seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        to_char(progress.next_review_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
$$;
COMMENT ON FUNCTION describe_progress(user_card_progress) IS
    'Progress on a card as the API answers it, in JSON: record_ratings makes its answer where it keeps it.';

CREATE FUNCTION record_ratings(
    given_user uuid,
    given_key text, given_fingerprint bytea, given_stale text[], is_batch boolean, counts_wanted boolean,
    given_zone text, given_now timestamptz, now_until timestamptz,
    flashcard_ids uuid[], confidence_levels smallint[], mastery_statuses text[], review_seconds integer[],
    response_times_ms integer[], session_ids uuid[], rated_ats timestamptz[], days date[], lapses_ats timestamptz[],
    card_ids uuid[], class_ids uuid[], own_sessions uuid[], memories jsonb,
    OUT outcome text, OUT status smallint, OUT location text, OUT body bytea, OUT stale text[], OUT counts json,
    OUT missing uuid[]
) LANGUAGE plpgsql SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    claimed record;
    known record;
    moment timestamptz;
    deck_ids uuid[];
    newest record;
    memorized uuid[] := '{}';
    described text[];
    described_ids uuid[];
    more record;
BEGIN
    IF given_key IS NOT NULL THEN
        SELECT * INTO claimed FROM claim_idempotency_key(given_user, given_key, given_fingerprint);
        IF claimed.fingerprint <> given_fingerprint THEN
            outcome := 'key_reused';
            RETURN;
        ELSIF claimed.status IS NOT NULL THEN
            outcome := 'replayed';
            status := claimed.status;
            location := claimed.location;
            body := claimed.body;
            stale := claimed.stale;
            RETURN;
        END IF;
    END IF;
    <<checks>>
    BEGIN
        -- Until the transaction ends the cards stay where they are.
        SELECT array_agg(c.id) AS ids, array_agg(DISTINCT c.deck_id) AS deck_ids,
               bool_and(c.class_id = class_ids[array_position(card_ids, c.id)]
                        AND (c.scheduler = 'fsrs') = (m.flashcard_id IS NOT NULL)) AS is_expected
          INTO known
          FROM (SELECT f.id, f.deck_id, d.class_id, l.scheduler
                  FROM flashcards AS f
                  JOIN decks AS d ON d.id = f.deck_id AND d.is_published
                  JOIN classes AS l ON l.id = d.class_id AND l.is_published
                 WHERE f.id = ANY(card_ids) AND f.is_published
                 ORDER BY f.id
                   FOR KEY SHARE OF f) AS c
          LEFT JOIN jsonb_to_recordset(memories) AS m (flashcard_id uuid) ON m.flashcard_id = c.id;
        IF coalesce(cardinality(known.ids), 0) < cardinality(card_ids) THEN
            outcome := 'no_card';
            missing := array(SELECT c.id FROM unnest(card_ids) AS c (id) WHERE c.id <> ALL(coalesce(known.ids, '{}')));
            EXIT checks;
        ELSIF NOT known.is_expected THEN
            outcome := 'unexpected';
            EXIT checks;
        END IF;
        deck_ids := known.deck_ids;
        SELECT s.last_active_at, u.time_zone INTO known
          FROM user_stats AS s
          JOIN users AS u ON u.id = s.user_id
         WHERE s.user_id = given_user
           FOR UPDATE OF s;
        IF NOT FOUND THEN
            outcome := 'no_user';
            EXIT checks;
        END IF;
        -- One after another, also where two hosts' clocks differ: a rating of now is the newest.
        moment := greatest(given_now, known.last_active_at);
        IF known.time_zone <> given_zone OR (moment > given_now AND moment >= now_until) OR EXISTS (
               SELECT FROM jsonb_to_recordset(memories) AS m (flashcard_id uuid, logged integer)
                WHERE m.logged <> (SELECT count(*) FROM review_log AS r
                                    WHERE r.user_id = given_user AND r.flashcard_id = m.flashcard_id)) THEN
            outcome := 'unexpected';
            EXIT checks;
        END IF;
        IF cardinality(own_sessions) > 0 THEN
            SELECT count(*) AS sessions, count(s.ended_at) AS ended INTO more
              FROM study_sessions AS s WHERE s.user_id = given_user AND s.id = ANY(own_sessions);
            IF more.sessions < cardinality(own_sessions) THEN
                outcome := 'no_session';
                EXIT checks;
            ELSIF more.ended > 0 THEN
                outcome := 'session_ended';
                EXIT checks;
            END IF;
        END IF;
    END;
    IF outcome IS NOT NULL THEN  -- nothing has happened, and the key stays free
        DELETE FROM idempotency_keys AS k WHERE k.user_id = given_user AND k.key = given_key;
        RETURN;
    END IF;

    INSERT INTO review_log (user_id, flashcard_id, confidence_level, response_time_ms, rated_at, day, lapses_at)
    SELECT given_user, r.flashcard_id, r.confidence_level, r.response_time_ms, coalesce(r.rated_at, moment), r.day,
           r.lapses_at
      FROM unnest(flashcard_ids, confidence_levels, response_times_ms, rated_ats, days, lapses_ats)
           WITH ORDINALITY AS r (flashcard_id, confidence_level, response_time_ms, rated_at, day, lapses_at, n)
     ORDER BY r.n;
    IF cardinality(own_sessions) > 0 THEN
        INSERT INTO session_cards (session_id, flashcard_id, confidence_level, response_time_ms, rated_at)
        SELECT r.session_id, r.flashcard_id, r.confidence_level, r.response_time_ms, coalesce(r.rated_at, moment)
          FROM unnest(session_ids, flashcard_ids, confidence_levels, response_times_ms, rated_ats)
               AS r (session_id, flashcard_id, confidence_level, response_time_ms, rated_at)
         WHERE r.session_id IS NOT NULL;
    END IF;

    -- The newest rating of each card. Of equally new ones, the last that was given.
    SELECT array_agg(n.flashcard_id) AS ids, array_agg(n.level) AS levels, array_agg(n.mastery) AS masteries,
           array_agg(n.times) AS times, array_agg(n.seen_at) AS seen_ats,
           array_agg(n.seen_at + n.seconds * interval '1 second') AS review_ats
      INTO newest
      FROM (SELECT DISTINCT ON (r.flashcard_id) r.flashcard_id, r.level, r.mastery, r.seconds, s.seen_at,
                   count(*) OVER (PARTITION BY r.flashcard_id) AS times
              FROM unnest(flashcard_ids, confidence_levels, mastery_statuses, review_seconds, rated_ats)
                   WITH ORDINALITY AS r (flashcard_id, level, mastery, seconds, rated_at, n)
             CROSS JOIN LATERAL (SELECT coalesce(r.rated_at, moment) AS seen_at) AS s
             ORDER BY r.flashcard_id, s.seen_at DESC, r.n DESC) AS n;
    IF memories IS NOT NULL THEN
        SELECT array_agg(m.flashcard_id) AS ids, array_agg(m.due_at) AS due_ats INTO more
          FROM jsonb_to_recordset(memories) AS m (flashcard_id uuid, due_at timestamptz);
        newest.review_ats := array(
            SELECT coalesce(more.due_ats[array_position(more.ids, n.id)], n.review_at)
              FROM unnest(newest.ids, newest.review_ats) WITH ORDINALITY AS n (id, review_at, n) ORDER BY n.n);
        memorized := more.ids;
        INSERT INTO memory_states AS m (
               user_id, flashcard_id, stability, difficulty, state, step, due_at, last_review_at, reviews)
        SELECT given_user, s.flashcard_id, s.stability, s.difficulty, s.state, s.step, s.due_at, s.last_review_at,
               s.reviews
          FROM jsonb_to_recordset(memories)
               AS s (flashcard_id uuid, stability float8, difficulty float8, state text, step smallint,
                     due_at timestamptz, last_review_at timestamptz, reviews integer)
         ORDER BY s.flashcard_id
            ON CONFLICT (user_id, flashcard_id) DO UPDATE
           SET stability = excluded.stability, difficulty = excluded.difficulty, state = excluded.state,
               step = excluded.step, due_at = excluded.due_at, last_review_at = excluded.last_review_at,
               reviews = excluded.reviews;
    END IF;

    -- A row for a card seen for the first time, else the row moved on. A rating that is older than the newest one known
    -- (an offline device that comes back) counts as seen and changes nothing else, but for what FSRS makes of it. Two
    -- statements instead of an upsert, which calls the triggers of both; nobody else writes this progress meanwhile.
    WITH recorded AS (
        UPDATE user_card_progress AS p
           SET times_seen = p.times_seen + r.times,
               confidence_level = CASE WHEN r.seen_at >= p.last_seen_at THEN r.level ELSE p.confidence_level END,
               mastery_status = CASE WHEN r.seen_at >= p.last_seen_at THEN r.mastery ELSE p.mastery_status END,
               next_review_at = CASE WHEN r.seen_at >= p.last_seen_at OR r.flashcard_id = ANY(memorized)
                                     THEN r.review_at ELSE p.next_review_at END,
               last_seen_at = greatest(p.last_seen_at, r.seen_at)
          FROM unnest(newest.ids, newest.levels, newest.masteries, newest.times, newest.seen_ats, newest.review_ats)
               AS r (flashcard_id, level, mastery, times, seen_at, review_at)
         WHERE p.user_id = given_user AND p.flashcard_id = r.flashcard_id
        RETURNING p.flashcard_id, describe_progress(p) AS description
    )
    SELECT array_agg(recorded.flashcard_id), array_agg(recorded.description) INTO described_ids, described
      FROM recorded;
    IF coalesce(cardinality(described_ids), 0) < cardinality(card_ids) THEN
        WITH recorded AS (
            INSERT INTO user_card_progress AS p (
                   user_id, flashcard_id, deck_id, confidence_level, mastery_status, times_seen, last_seen_at,
                   next_review_at)
            SELECT given_user, r.flashcard_id, f.deck_id, r.level, r.mastery, r.times, r.seen_at, r.review_at
              FROM unnest(newest.ids, newest.levels, newest.masteries, newest.times, newest.seen_ats,
                          newest.review_ats) AS r (flashcard_id, level, mastery, times, seen_at, review_at)
              JOIN flashcards AS f ON f.id = r.flashcard_id
             WHERE r.flashcard_id <> ALL(coalesce(described_ids, '{}'))
            RETURNING p.flashcard_id, describe_progress(p) AS description
        )
        SELECT described_ids || array_agg(recorded.flashcard_id), described || array_agg(recorded.description)
          INTO described_ids, described
          FROM recorded;
    END IF;

    -- A day that is known changes only if it began earlier or ends later than was known. The streak follows by trigger.
    FOR more IN
        SELECT r.day, min(coalesce(r.rated_at, moment)) AS first_at, max(r.lapses_at) AS lapses_at
          FROM unnest(days, rated_ats, lapses_ats) AS r (day, rated_at, lapses_at)
         GROUP BY r.day ORDER BY r.day
    LOOP
        IF NOT EXISTS (SELECT FROM user_active_days AS a
                        WHERE a.user_id = given_user AND a.day = more.day AND a.first_at <= more.first_at
                          AND a.lapses_at >= more.lapses_at) THEN
            INSERT INTO user_active_days AS a (user_id, day, first_at, lapses_at)
            VALUES (given_user, more.day, more.first_at, more.lapses_at)
                ON CONFLICT (user_id, day) DO UPDATE
               SET first_at = least(a.first_at, excluded.first_at),
                   lapses_at = greatest(a.lapses_at, excluded.lapses_at);
        END IF;
    END LOOP;
    UPDATE user_stats AS s
       SET last_active_at = greatest(s.last_active_at,
                                     (SELECT max(coalesce(r.rated_at, moment)) FROM unnest(rated_ats) AS r (rated_at)))
     WHERE s.user_id = given_user;

    IF counts_wanted THEN
        SELECT json_agg(c) INTO counts
          FROM (SELECT d.class_id, n.*
                  FROM count_published_cards(given_user, deck_ids) AS n
                  JOIN decks AS d ON d.id = n.deck_id) AS c;
    END IF;
    SELECT string_agg(described[array_position(described_ids, r.id)], ',' ORDER BY r.n) AS progress INTO more
      FROM unnest(flashcard_ids) WITH ORDINALITY AS r (id, n);
    body := convert_to(CASE WHEN is_batch THEN '{"progress":[' || more.progress || ']}' ELSE more.progress END, 'UTF8');
    outcome := 'recorded';
    status := 200;
    IF given_key IS NOT NULL THEN
        UPDATE idempotency_keys AS k
           SET status = 200, body = record_ratings.body, stale = given_stale
         WHERE k.user_id = given_user AND k.key = given_key;
    END IF;
END
$$;
COMMENT ON FUNCTION record_ratings(uuid, text, bytea, text[], boolean, boolean, text, timestamptz, timestamptz, uuid[],
    smallint[], text[], integer[], integer[], uuid[], timestamptz[], date[], timestamptz[], uuid[], uuid[], uuid[],
    jsonb) IS
    'Records ratings, all or none: the log, the session, progress, memories, the day, and the answer under its key. '
    'What its caller has assumed (the class and the scheduler of a card, the time zone of the profile, how many reviews '
    'a memory is made of) is checked under the locks; where something is otherwise, nothing happens.';

COMMENT ON INDEX idx_user_card_progress_user_flashcard IS
    'Serves record_ratings, get_card_progress and every overlay: the progress of a user on a card.';
COMMENT ON INDEX idx_review_log_user_flashcard IS
    'Serves list_reviews, find_rating_facts and record_ratings: the reviews of a card by one user, oldest first.';
COMMENT ON FUNCTION count_published_cards(uuid, uuid[]) IS
    'What a user has of the published cards of some decks, by mastery, rows without cards left out: the counters '
    'of the decks, less the user''s cards that are hidden in them. Asked with every rating (record_ratings). A '
    'function, because a session keeps its plan: planning took twice as long as the rest of the statement.';
