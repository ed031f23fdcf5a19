-- A single rating, by far the most frequent, without what a batch needs: sorting, grouping and joining lists took two
-- fifths of a rating's time, most of it to set up plans that then see one row. The release before calls record_ratings.

CREATE FUNCTION rate_card(
    given_user uuid, given_card uuid, given_class uuid, level integer, mastery text, review_seconds integer,
    response_time_ms integer, given_session uuid, given_rated_at timestamptz, given_day date,
    given_lapses_at timestamptz, given_now timestamptz, now_until timestamptz, given_zone text,
    given_key text, given_fingerprint bytea, given_stale text[], counts_wanted boolean
) RETURNS text LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
    SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    claimed record;
    card record;
    session record;
    refusal text;
    moment timestamptz;
    progress text;
    counts record;
    counted text;
BEGIN
    IF given_key IS NOT NULL THEN
        SELECT * INTO claimed FROM claim_idempotency_key(given_user, given_key, given_fingerprint);
        IF claimed.fingerprint <> given_fingerprint THEN
            RETURN E'key_reused\n\n';
        ELSIF claimed.status IS NOT NULL THEN
            RETURN concat_ws(E'\n', 'replayed', array_to_string(claimed.stale, ' '), convert_from(claimed.body, 'UTF8'));
        END IF;
    END IF;
    <<checks>>
    BEGIN
        -- Until the transaction ends the card stays where it is.
        SELECT f.deck_id, d.class_id, l.scheduler INTO card
          FROM flashcards AS f
          JOIN decks AS d ON d.id = f.deck_id AND d.is_published
          JOIN classes AS l ON l.id = d.class_id AND l.is_published
         WHERE f.id = given_card AND f.is_published
           FOR KEY SHARE OF f;
        IF NOT FOUND THEN
            refusal := 'no_card';
            EXIT checks;
        ELSIF card.class_id <> given_class OR card.scheduler = 'fsrs' THEN
            refusal := 'unexpected';
            EXIT checks;
        END IF;
        IF given_session IS NOT NULL THEN
            PERFORM FROM user_stats AS s WHERE s.user_id = given_user FOR NO KEY UPDATE;
            SELECT s.ended_at INTO session
              FROM study_sessions AS s WHERE s.user_id = given_user AND s.id = given_session;
            IF session.ended_at IS NOT NULL THEN
                refusal := 'session_ended';
                EXIT checks;
            ELSIF NOT FOUND AND EXISTS (SELECT FROM users AS u WHERE u.id = given_user) THEN
                refusal := 'no_session';
                EXIT checks;
            END IF;
        END IF;
        -- The lock of the user's writes, and the last of the checks. One rating after another, also where two hosts'
        -- clocks differ: a rating of now is the newest.
        UPDATE user_stats AS s
           SET last_active_at = greatest(s.last_active_at, coalesce(given_rated_at, given_now))
          FROM users AS u
         WHERE s.user_id = given_user AND u.id = s.user_id
           AND (given_zone IS NULL OR u.time_zone = given_zone)
           AND (now_until IS NULL OR s.last_active_at <= given_now OR s.last_active_at < now_until)
        RETURNING s.last_active_at INTO moment;
        IF NOT FOUND THEN
            refusal := CASE WHEN EXISTS (SELECT FROM user_stats AS s WHERE s.user_id = given_user)
                            THEN 'unexpected' ELSE 'no_user' END;
        END IF;
    END;
    IF refusal IS NOT NULL THEN  -- nothing has happened, and the key stays free
        IF given_key IS NOT NULL THEN
            DELETE FROM idempotency_keys AS k WHERE k.user_id = given_user AND k.key = given_key;
        END IF;
        RETURN refusal || E'\n\n';
    END IF;
    moment := coalesce(given_rated_at, moment);

    INSERT INTO review_log (user_id, flashcard_id, confidence_level, response_time_ms, rated_at, day, lapses_at)
    VALUES (given_user, given_card, level, response_time_ms, moment, given_day, given_lapses_at);
    IF given_session IS NOT NULL THEN
        INSERT INTO session_cards (session_id, flashcard_id, confidence_level, response_time_ms, rated_at)
        VALUES (given_session, given_card, level, response_time_ms, moment);
    END IF;

    -- As in record_ratings: a rating that is older than the newest one known counts as seen and changes nothing else.
    UPDATE user_card_progress AS p
       SET times_seen = p.times_seen + 1,
           confidence_level = CASE WHEN moment >= p.last_seen_at THEN level ELSE p.confidence_level END,
           mastery_status = CASE WHEN moment >= p.last_seen_at THEN mastery ELSE p.mastery_status END,
           next_review_at = CASE WHEN moment >= p.last_seen_at
                                 THEN moment + review_seconds * interval '1 second' ELSE p.next_review_at END,
           last_seen_at = greatest(p.last_seen_at, moment)
     WHERE p.user_id = given_user AND p.flashcard_id = given_card
    RETURNING describe_progress(p) INTO progress;
    IF NOT FOUND THEN
        INSERT INTO user_card_progress AS p (
               user_id, flashcard_id, deck_id, confidence_level, mastery_status, times_seen, last_seen_at,
               next_review_at)
        VALUES (given_user, given_card, card.deck_id, level, mastery, 1, moment,
                moment + review_seconds * interval '1 second')
        RETURNING describe_progress(p) INTO progress;
    END IF;

    IF NOT EXISTS (SELECT FROM user_active_days AS a
                    WHERE a.user_id = given_user AND a.day = given_day AND a.first_at <= moment
                      AND a.lapses_at >= given_lapses_at) THEN
        INSERT INTO user_active_days AS a (user_id, day, first_at, lapses_at)
        VALUES (given_user, given_day, moment, given_lapses_at)
            ON CONFLICT (user_id, day) DO UPDATE
           SET first_at = least(a.first_at, excluded.first_at),
               lapses_at = greatest(a.lapses_at, excluded.lapses_at);
    END IF;

    IF counts_wanted THEN
        SELECT s.new_cards, s.learning_cards, s.mastered_cards,
               EXISTS (SELECT FROM flashcards AS f WHERE f.deck_id = card.deck_id AND NOT f.is_published) AS has_hidden
          INTO counts
          FROM user_deck_stats AS s WHERE s.user_id = given_user AND s.deck_id = card.deck_id;
        IF counts.has_hidden THEN
            -- integer as above: a session's plan of what follows holds for one type only.
            SELECT coalesce(sum(n.cards) FILTER (WHERE n.mastery_status = 'new'), 0)::integer AS new_cards,
                   coalesce(sum(n.cards) FILTER (WHERE n.mastery_status = 'learning'), 0)::integer AS learning_cards,
                   coalesce(sum(n.cards) FILTER (WHERE n.mastery_status = 'mastered'), 0)::integer AS mastered_cards
              INTO counts
              FROM count_published_cards(given_user, ARRAY[card.deck_id]) AS n;
        END IF;
        counted := concat_ws(' ', card.deck_id, counts.new_cards, counts.learning_cards, counts.mastered_cards);
    END IF;
    IF given_key IS NOT NULL THEN
        UPDATE idempotency_keys AS k
           SET status = 200, body = convert_to(progress, 'UTF8'), stale = given_stale
         WHERE k.user_id = given_user AND k.key = given_key;
    END IF;
    RETURN concat(E'recorded\n', counted, E'\n', progress);
END
$$;
COMMENT ON FUNCTION rate_card(uuid, uuid, uuid, integer, text, integer, integer, uuid, timestamptz, date, timestamptz,
    timestamptz, timestamptz, text, text, bytea, text[], boolean) IS
    'Records one rating in a class with the fixed scheduler, as record_ratings does for any. Three lines come of it: the '
    'outcome; if wanted, the card''s deck and how many of its published cards are new, learning and mastered to the user, '
    'or of a repeated request the cache keys that it made stale; and the answer. They are one text, because a row of '
    'columns costs several percent more to plan and to read.';
