-- The days on which a user studied: a streak follows from them, in whatever order they arrive. A device that was offline
-- brings a day that fills a gap; then the streak is as long as if it had been online.
CREATE TABLE user_active_days (
    user_id    uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    -- The date where the user was.
    day        date NOT NULL,
    -- The first rating of that day.
    first_at   timestamptz NOT NULL,
    -- Midnight at the end of the day after it, where the user was: a streak that nobody continues before reads 0.
    lapses_at  timestamptz NOT NULL,
    PRIMARY KEY (user_id, day),
    CONSTRAINT user_active_days_lapse_later CHECK (lapses_at > first_at)
);

-- The streak in user_stats is that of the last run of days. A day belongs to the run of the day before it,
-- if the user studied on it before the streak had lapsed: in one time zone that means the very next day, and for a
-- traveller that what was shown as living goes on. Kept by triggers, as the counters are; check-counters recounts.
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
CREATE TRIGGER active_days_inserted AFTER INSERT ON user_active_days
    REFERENCING NEW TABLE AS noted FOR EACH STATEMENT EXECUTE FUNCTION keep_streaks();
CREATE TRIGGER active_days_updated AFTER UPDATE ON user_active_days
    REFERENCING NEW TABLE AS noted FOR EACH STATEMENT EXECUTE FUNCTION keep_streaks();

-- What is known of the time before: the days of the streak that is shown, and those of the ratings in the log, where the
-- profile says that the user lives. A zone that this server does not know counts as UTC.
WITH profiles AS MATERIALIZED (
    SELECT u.id AS user_id, coalesce(z.name, 'UTC') AS time_zone
      FROM users AS u
      LEFT JOIN pg_timezone_names AS z ON z.name = u.time_zone
), known AS (
    SELECT p.user_id, d.day::date AS day, d.day AT TIME ZONE p.time_zone AS first_at,
           CASE WHEN d.day = s.last_active_date THEN s.streak_lapses_at END AS lapses_at, p.time_zone
      FROM profiles AS p
      JOIN user_stats AS s ON s.user_id = p.user_id AND s.study_streak_days > 0
     CROSS JOIN LATERAL generate_series(
           s.last_active_date - (s.study_streak_days - 1) * interval '1 day', s.last_active_date, interval '1 day'
           ) AS d (day)
     UNION ALL
    SELECT p.user_id, (r.rated_at AT TIME ZONE p.time_zone)::date, r.rated_at, NULL, p.time_zone
      FROM profiles AS p
      JOIN review_log AS r ON r.user_id = p.user_id
)
INSERT INTO user_active_days (user_id, day, first_at, lapses_at)
SELECT user_id, day, min(first_at), max(coalesce(lapses_at, (day + 2)::timestamp AT TIME ZONE time_zone))
  FROM known
 GROUP BY user_id, day;
