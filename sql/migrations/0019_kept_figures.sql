-- baseline
-- The figures of user_stats and user_deck_stats are kept by triggers, a statement at a time: every way in which progress
-- comes, changes or goes (a rating, a batch, a deleted class that takes its cards along) is counted exactly once and in the
-- same transaction. `python -m server check-counters` recounts.

-- Each account has its figures.
CREATE FUNCTION create_user_stats() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO user_stats (user_id) VALUES (NEW.id);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION create_user_stats() IS
    'A user has figures from the first moment, so that every later change is an UPDATE of an existing row.';
CREATE TRIGGER users_have_stats AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION create_user_stats();
COMMENT ON TRIGGER users_have_stats ON users IS 'Each account has its row of figures.';

-- Progress comes, changes and goes.
CREATE FUNCTION find_deck_of_progress() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT deck_id INTO NEW.deck_id FROM flashcards WHERE id = NEW.flashcard_id FOR KEY SHARE;
    RETURN NEW;
END
$$;
COMMENT ON FUNCTION find_deck_of_progress() IS
    'Completes progress that names no deck. Locked as the foreign key will lock it: a card that is being moved is '
    'waited for.';
CREATE TRIGGER progress_has_deck BEFORE INSERT ON user_card_progress
    FOR EACH ROW WHEN (NEW.deck_id IS NULL) EXECUTE FUNCTION find_deck_of_progress();
COMMENT ON TRIGGER progress_has_deck ON user_card_progress IS
    'A statement that records a rating need not know the deck.';

CREATE FUNCTION count_progress_inserted() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    one record;
BEGIN
    SELECT user_id, deck_id, (mastery_status = 'new')::integer AS new_cards,
           (mastery_status = 'learning')::integer AS learning_cards,
           (mastery_status = 'mastered')::integer AS mastered_cards, count(*) OVER () AS rows
      INTO one FROM inserted LIMIT 1;
    IF NOT FOUND THEN
        RETURN NULL;  -- an upsert that found all of its rows
    END IF;
    IF one.rows = 1 THEN  -- a single rating, by far the most frequent: without any of the sums
        UPDATE user_stats
           SET new_cards = new_cards + one.new_cards,
               learning_cards = learning_cards + one.learning_cards,
               mastered_cards = mastered_cards + one.mastered_cards
         WHERE user_id = one.user_id;
        INSERT INTO user_deck_stats AS s (user_id, deck_id, new_cards, learning_cards, mastered_cards)
        VALUES (one.user_id, one.deck_id, one.new_cards, one.learning_cards, one.mastered_cards)
            ON CONFLICT (user_id, deck_id) DO UPDATE
           SET new_cards = s.new_cards + excluded.new_cards,
               learning_cards = s.learning_cards + excluded.learning_cards,
               mastered_cards = s.mastered_cards + excluded.mastered_cards;
        RETURN NULL;
    END IF;
    PERFORM FROM user_stats WHERE user_id IN (SELECT user_id FROM inserted) ORDER BY user_id FOR NO KEY UPDATE;
    UPDATE user_stats AS s
       SET new_cards = s.new_cards + d.new_cards,
           learning_cards = s.learning_cards + d.learning_cards,
           mastered_cards = s.mastered_cards + d.mastered_cards
      FROM (SELECT user_id,
                   count(*) FILTER (WHERE mastery_status = 'new') AS new_cards,
                   count(*) FILTER (WHERE mastery_status = 'learning') AS learning_cards,
                   count(*) FILTER (WHERE mastery_status = 'mastered') AS mastered_cards
              FROM inserted GROUP BY user_id) AS d
     WHERE s.user_id = d.user_id;
    INSERT INTO user_deck_stats AS s (user_id, deck_id, new_cards, learning_cards, mastered_cards)
    SELECT user_id, deck_id,
           count(*) FILTER (WHERE mastery_status = 'new'),
           count(*) FILTER (WHERE mastery_status = 'learning'),
           count(*) FILTER (WHERE mastery_status = 'mastered')
      FROM inserted GROUP BY user_id, deck_id ORDER BY user_id, deck_id
        ON CONFLICT (user_id, deck_id) DO UPDATE
       SET new_cards = s.new_cards + excluded.new_cards,
           learning_cards = s.learning_cards + excluded.learning_cards,
           mastered_cards = s.mastered_cards + excluded.mastered_cards;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION count_progress_inserted() IS
    'Counts new progress in user_stats and user_deck_stats. Two rules hold in all three of these functions. Locks '
    'are taken in one order by every transaction: cards, then the users'' rows of user_stats by user_id, then '
    'progress and user_deck_stats; a transaction that holds a row of user_stats may recount that user. And only '
    'plans along an index are allowed, as a session keeps the plan of a statement in a function: made for the '
    'deletion of a large deck it would be a scan, and stay one for the single ratings that follow on the same '
    'connection.';
CREATE TRIGGER progress_inserted AFTER INSERT ON user_card_progress
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION count_progress_inserted();
COMMENT ON TRIGGER progress_inserted ON user_card_progress IS 'Once a statement, whatever makes the rows.';

CREATE FUNCTION count_progress_updated() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    changed integer;
    one record;
BEGIN
    SELECT count(*) INTO changed FROM (SELECT FROM after_update LIMIT 2) AS few;
    IF changed = 0 THEN
        RETURN NULL;  -- an upsert that found none of its rows
    END IF;
    IF changed = 1 THEN  -- as above
        SELECT a.user_id, a.deck_id, a.mastery_status <> b.mastery_status AS is_other,
               (a.mastery_status = 'new')::integer - (b.mastery_status = 'new')::integer AS new_cards,
               (a.mastery_status = 'learning')::integer - (b.mastery_status = 'learning')::integer AS learning_cards,
               (a.mastery_status = 'mastered')::integer - (b.mastery_status = 'mastered')::integer AS mastered_cards
          INTO one FROM after_update AS a JOIN before_update AS b ON b.deck_id = a.deck_id;
        IF FOUND THEN
            IF one.is_other THEN
                UPDATE user_stats
                   SET new_cards = new_cards + one.new_cards,
                       learning_cards = learning_cards + one.learning_cards,
                       mastered_cards = mastered_cards + one.mastered_cards
                 WHERE user_id = one.user_id;
                UPDATE user_deck_stats
                   SET new_cards = new_cards + one.new_cards,
                       learning_cards = learning_cards + one.learning_cards,
                       mastered_cards = mastered_cards + one.mastered_cards
                 WHERE user_id = one.user_id AND deck_id = one.deck_id;
            END IF;
            RETURN NULL;
        END IF;
    END IF;
    -- Most ratings leave the status as it was.
    IF NOT EXISTS (SELECT user_id, deck_id, mastery_status FROM after_update
                   EXCEPT ALL
                   SELECT user_id, deck_id, mastery_status FROM before_update) THEN
        RETURN NULL;
    END IF;
    PERFORM FROM user_stats WHERE user_id IN (SELECT user_id FROM after_update) ORDER BY user_id FOR NO KEY UPDATE;
    UPDATE user_stats AS s
       SET new_cards = s.new_cards + d.new_cards,
           learning_cards = s.learning_cards + d.learning_cards,
           mastered_cards = s.mastered_cards + d.mastered_cards
      FROM (SELECT user_id,
                   coalesce(sum(sign) FILTER (WHERE mastery_status = 'new'), 0) AS new_cards,
                   coalesce(sum(sign) FILTER (WHERE mastery_status = 'learning'), 0) AS learning_cards,
                   coalesce(sum(sign) FILTER (WHERE mastery_status = 'mastered'), 0) AS mastered_cards
              FROM (SELECT user_id, mastery_status, 1 AS sign FROM after_update
                    UNION ALL
                    SELECT user_id, mastery_status, -1 FROM before_update) AS changes
             GROUP BY user_id) AS d
     WHERE s.user_id = d.user_id AND (d.new_cards, d.learning_cards, d.mastered_cards) <> (0, 0, 0);
    -- Decks that a moved card brings to a user.
    INSERT INTO user_deck_stats (user_id, deck_id, new_cards, learning_cards, mastered_cards)
    SELECT user_id, deck_id, 0, 0, 0
      FROM (SELECT user_id, deck_id FROM after_update EXCEPT SELECT user_id, deck_id FROM before_update) AS d
     ORDER BY user_id, deck_id
        ON CONFLICT (user_id, deck_id) DO NOTHING;
    UPDATE user_deck_stats AS s
       SET new_cards = s.new_cards + d.new_cards,
           learning_cards = s.learning_cards + d.learning_cards,
           mastered_cards = s.mastered_cards + d.mastered_cards
      FROM (SELECT user_id, deck_id,
                   coalesce(sum(sign) FILTER (WHERE mastery_status = 'new'), 0) AS new_cards,
                   coalesce(sum(sign) FILTER (WHERE mastery_status = 'learning'), 0) AS learning_cards,
                   coalesce(sum(sign) FILTER (WHERE mastery_status = 'mastered'), 0) AS mastered_cards
              FROM (SELECT user_id, deck_id, mastery_status, 1 AS sign FROM after_update
                    UNION ALL
                    SELECT user_id, deck_id, mastery_status, -1 FROM before_update) AS changes
             GROUP BY user_id, deck_id) AS d
     WHERE s.user_id = d.user_id AND s.deck_id = d.deck_id
       AND (d.new_cards, d.learning_cards, d.mastered_cards) <> (0, 0, 0);
    -- And those that it was the last one of.
    DELETE FROM user_deck_stats AS s
     USING (SELECT user_id, deck_id FROM before_update EXCEPT SELECT user_id, deck_id FROM after_update) AS d
     WHERE s.user_id = d.user_id AND s.deck_id = d.deck_id
       AND (s.new_cards, s.learning_cards, s.mastered_cards) = (0, 0, 0);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION count_progress_updated() IS
    'Counts progress that has changed its mastery or its deck. Most ratings leave both as they were, and write '
    'nothing here.';
CREATE TRIGGER progress_updated AFTER UPDATE ON user_card_progress
    REFERENCING OLD TABLE AS before_update NEW TABLE AS after_update
    FOR EACH STATEMENT EXECUTE FUNCTION count_progress_updated();
COMMENT ON TRIGGER progress_updated ON user_card_progress IS 'Once a statement, also when a card changes its deck.';

CREATE FUNCTION count_progress_deleted() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    PERFORM FROM user_stats WHERE user_id IN (SELECT user_id FROM deleted) ORDER BY user_id FOR NO KEY UPDATE;
    UPDATE user_stats AS s
       SET new_cards = s.new_cards - d.new_cards,
           learning_cards = s.learning_cards - d.learning_cards,
           mastered_cards = s.mastered_cards - d.mastered_cards
      FROM (SELECT user_id,
                   count(*) FILTER (WHERE mastery_status = 'new') AS new_cards,
                   count(*) FILTER (WHERE mastery_status = 'learning') AS learning_cards,
                   count(*) FILTER (WHERE mastery_status = 'mastered') AS mastered_cards
              FROM deleted GROUP BY user_id) AS d
     WHERE s.user_id = d.user_id;
    UPDATE user_deck_stats AS s
       SET new_cards = s.new_cards - d.new_cards,
           learning_cards = s.learning_cards - d.learning_cards,
           mastered_cards = s.mastered_cards - d.mastered_cards
      FROM (SELECT user_id, deck_id,
                   count(*) FILTER (WHERE mastery_status = 'new') AS new_cards,
                   count(*) FILTER (WHERE mastery_status = 'learning') AS learning_cards,
                   count(*) FILTER (WHERE mastery_status = 'mastered') AS mastered_cards
              FROM deleted GROUP BY user_id, deck_id) AS d
     WHERE s.user_id = d.user_id AND s.deck_id = d.deck_id;
    DELETE FROM user_deck_stats AS s
     USING (SELECT DISTINCT user_id, deck_id FROM deleted) AS d
     WHERE s.user_id = d.user_id AND s.deck_id = d.deck_id
       AND (s.new_cards, s.learning_cards, s.mastered_cards) = (0, 0, 0);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION count_progress_deleted() IS 'Takes progress that is gone off the counters.';
CREATE TRIGGER progress_deleted AFTER DELETE ON user_card_progress
    REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION count_progress_deleted();
COMMENT ON TRIGGER progress_deleted ON user_card_progress IS
    'Once a statement, also when a class takes its cards along.';

CREATE FUNCTION delete_progress_in_deck() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM flashcards WHERE deck_id = OLD.id ORDER BY id FOR UPDATE;
    DELETE FROM user_card_progress WHERE deck_id = OLD.id;
    RETURN OLD;
END
$$;
COMMENT ON FUNCTION delete_progress_in_deck() IS
    'Deletes the progress on a deck in one statement, so that the counters of each user are written once and not '
    'once a card; after all of its cards are locked, so that ratings of them have ended or wait.';
CREATE TRIGGER decks_take_progress BEFORE DELETE ON decks FOR EACH ROW EXECUTE FUNCTION delete_progress_in_deck();
COMMENT ON TRIGGER decks_take_progress ON decks IS 'Before the foreign keys would delete the progress card by card.';

CREATE FUNCTION delete_progress_in_class() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM flashcards WHERE deck_id IN (SELECT id FROM decks WHERE class_id = OLD.id) ORDER BY id FOR UPDATE;
    DELETE FROM user_card_progress WHERE deck_id IN (SELECT id FROM decks WHERE class_id = OLD.id);
    RETURN OLD;
END
$$;
COMMENT ON FUNCTION delete_progress_in_class() IS 'The same for all decks of a class.';
CREATE TRIGGER classes_take_progress BEFORE DELETE ON classes FOR EACH ROW EXECUTE FUNCTION delete_progress_in_class();
COMMENT ON TRIGGER classes_take_progress ON classes IS
    'Before the foreign keys would delete the progress deck by deck.';

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
COMMENT ON FUNCTION count_published_cards(uuid, uuid[]) IS
    'What a user has of the published cards of some decks, by mastery, rows without cards left out: the counters '
    'of the decks, less the user''s cards that are hidden in them. Asked with every rating (record_activity). A '
    'function, because a session keeps its plan: planning took twice as long as the rest of the statement.';

-- Streaks.
CREATE FUNCTION keep_streaks() RETURNS trigger LANGUAGE plpgsql
    SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM noted) THEN
        RETURN NULL;  -- not the first rating of the day: by far the most frequent
    END IF;
    PERFORM FROM user_stats WHERE user_id IN (SELECT user_id FROM noted) ORDER BY user_id FOR NO KEY UPDATE;
    UPDATE user_stats AS s
       SET study_streak_days = streak.days, streak_lapses_at = streak.lapses_at,
           last_active_date = streak.last_active_date
      FROM (SELECT DISTINCT user_id FROM noted) AS active
     CROSS JOIN LATERAL (
           SELECT count(*) FILTER (WHERE day >= began) AS days, max(lapses_at) AS lapses_at,
                  max(day) AS last_active_date
             FROM (SELECT day, lapses_at, max(day) FILTER (WHERE is_first) OVER () AS began
                     FROM (SELECT day, lapses_at, coalesce(first_at >= max(lapses_at) OVER (
                                  ORDER BY day ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), true) AS is_first
                             FROM user_active_days AS a
                            WHERE a.user_id = active.user_id) AS days) AS runs
           ) AS streak
     WHERE s.user_id = active.user_id;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION keep_streaks() IS
    'Derives the streak from the active days: that of the last run of days. A day belongs to the run of the day '
    'before it if the user studied on it before the streak had lapsed. In one time zone that means the very next '
    'day; for a traveller, that a streak which was shown as living goes on.';
CREATE TRIGGER active_days_inserted AFTER INSERT ON user_active_days
    REFERENCING NEW TABLE AS noted FOR EACH STATEMENT EXECUTE FUNCTION keep_streaks();
COMMENT ON TRIGGER active_days_inserted ON user_active_days IS 'After the first rating of a day.';
CREATE TRIGGER active_days_updated AFTER UPDATE ON user_active_days
    REFERENCING NEW TABLE AS noted FOR EACH STATEMENT EXECUTE FUNCTION keep_streaks();
COMMENT ON TRIGGER active_days_updated ON user_active_days IS
    'After an earlier rating of a day that is known, or another midnight.';

CREATE FUNCTION known_time_zone(time_zone text) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM now() AT TIME ZONE time_zone;
    RETURN time_zone;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN 'UTC';
END
$$;
COMMENT ON FUNCTION known_time_zone(text) IS 'A time zone, or UTC for one that this server does not know.';

CREATE FUNCTION find_missing_active_days(after_user uuid, last_user uuid)
RETURNS TABLE (user_id uuid, day date, first_at timestamptz, lapses_at timestamptz) LANGUAGE sql STABLE AS $$
    WITH zones AS MATERIALIZED (
        SELECT u.id, known_time_zone(u.time_zone) AS time_zone
          FROM users AS u
         WHERE u.id > after_user AND u.id <= last_user
    ), logged AS (
        SELECT r.user_id, r.day, r.rated_at, r.lapses_at
          FROM review_log AS r
         WHERE r.user_id > after_user AND r.user_id <= last_user AND r.day IS NOT NULL
         UNION ALL
        SELECT r.user_id, d.day, r.rated_at, (d.day + 2)::timestamp AT TIME ZONE z.time_zone
          FROM review_log AS r
          JOIN zones AS z ON z.id = r.user_id
         CROSS JOIN LATERAL (SELECT (r.rated_at AT TIME ZONE z.time_zone)::date AS day) AS d
         WHERE r.day IS NULL
           AND NOT EXISTS (SELECT FROM user_active_days AS a
                            WHERE a.user_id = r.user_id AND r.rated_at >= a.lapses_at - interval '48 hours'
                              AND r.rated_at < a.lapses_at - interval '24 hours')
    )
    SELECT l.user_id, l.day, min(l.rated_at), max(l.lapses_at)
      FROM logged AS l
      LEFT JOIN user_active_days AS a ON a.user_id = l.user_id AND a.day = l.day
     WHERE a.user_id IS NULL OR l.rated_at < a.first_at OR l.lapses_at > a.lapses_at
     GROUP BY l.user_id, l.day
$$;
COMMENT ON FUNCTION find_missing_active_days(uuid, uuid) IS
    'The days that the log of some users has and user_active_days has not, or not from so early or until so late: '
    'for users above an id, up to another. Serves check-counters. A rating without a day belongs to the known day '
    'that it lies in. That ends 24 hours before its streak lapses; where the clocks change, a moment in the hour '
    'that this is wrong by belongs to the day that the time zone of the profile says.';

CREATE FUNCTION note_active_day() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    known record;
    active_day date;
    ends_at timestamptz;
BEGIN
    SELECT s.last_active_date, s.streak_lapses_at, known_time_zone(u.time_zone) AS time_zone,
           EXISTS (SELECT FROM user_active_days AS a
                    WHERE a.user_id = s.user_id AND a.day = s.last_active_date) AS is_noted
      INTO known
      FROM user_stats AS s
      JOIN users AS u ON u.id = s.user_id
     WHERE s.user_id = NEW.user_id;
    IF NOT known.is_noted AND NEW.rated_at >= known.streak_lapses_at - interval '48 hours'
       AND NEW.rated_at < known.streak_lapses_at - interval '24 hours' THEN
        active_day := known.last_active_date;
        ends_at := known.streak_lapses_at;
    ELSIF FOUND AND NOT EXISTS (
           SELECT FROM user_active_days AS a
            WHERE a.user_id = NEW.user_id AND NEW.rated_at >= a.lapses_at - interval '48 hours'
              AND NEW.rated_at < a.lapses_at - interval '24 hours') THEN
        active_day := (NEW.rated_at AT TIME ZONE known.time_zone)::date;
        ends_at := (active_day + 2)::timestamp AT TIME ZONE known.time_zone;
    ELSE
        RETURN NULL;
    END IF;
    INSERT INTO user_active_days AS a (user_id, day, first_at, lapses_at)
    VALUES (NEW.user_id, active_day, NEW.rated_at, ends_at)
        ON CONFLICT (user_id, day) DO UPDATE
       SET first_at = least(a.first_at, excluded.first_at), lapses_at = greatest(a.lapses_at, excluded.lapses_at);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION note_active_day() IS
    'Notes the day of a rating that names none, as it comes from an older release: the day that this release has '
    'just written into user_stats, or the date in the time zone of the profile. At the end of the transaction, '
    'when a release that knows of user_active_days has written it.';
CREATE CONSTRAINT TRIGGER reviews_have_days AFTER INSERT ON review_log
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.day IS NULL) EXECUTE FUNCTION note_active_day();
COMMENT ON TRIGGER reviews_have_days ON review_log IS
    'Only for ratings of older releases: the present one names the day.';
