-- The log of reviews says which day it was where the user was, so that the days of studying can be rebuilt from it; and what
-- a release writes that does not name the day is a day all the same. Such a release may run beside this one, or after a
-- rollback: without its days, a streak that it continued would have a gap.
--
-- Both are null in what another release wrote: as in user_active_days otherwise.
ALTER TABLE review_log
    ADD COLUMN day date,
    ADD COLUMN lapses_at timestamptz;

-- A time zone, or UTC for one that this server does not know.
CREATE FUNCTION known_time_zone(time_zone text) RETURNS text LANGUAGE plpgsql STABLE AS $$
BEGIN
    PERFORM now() AT TIME ZONE time_zone;
    RETURN time_zone;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN 'UTC';
END
$$;

-- The days that the log of some users has and user_active_days has not, or not from so early or until so late: for users
-- above an id, up to another. Serves check-counters, and the backfill. A rating without a day belongs to the known day
-- that it lies in. That ends 24 hours before its streak lapses; where the clocks change, a moment in the hour that
-- this is wrong by belongs to the day that the profile's time zone says.
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

-- At the end of the transaction, when a release that knows of user_active_days has written it. The release before that kept
-- the streak itself: the day that it has just written into user_stats is the one, where the user was.
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
CREATE CONSTRAINT TRIGGER reviews_have_days AFTER INSERT ON review_log
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.day IS NULL) EXECUTE FUNCTION note_active_day();
