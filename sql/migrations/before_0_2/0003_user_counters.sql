-- user_stats counts a user's cards by mastery. Triggers keep it, a statement at a time, so that every way in which
-- progress rows come, change or go (a rating, a batch, a deleted class that takes its cards along) is counted
-- exactly once and in the same transaction. `python -m server check-counters` recounts.

-- A user has figures from the first moment, so that every later change is an UPDATE of an existing row.
CREATE FUNCTION create_user_stats() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO user_stats (user_id) VALUES (NEW.id);
    RETURN NULL;
END
$$;
CREATE TRIGGER users_have_stats AFTER INSERT ON users FOR EACH ROW EXECUTE FUNCTION create_user_stats();

CREATE FUNCTION count_progress_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
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
    RETURN NULL;
END
$$;
CREATE TRIGGER progress_inserted AFTER INSERT ON user_card_progress
    REFERENCING NEW TABLE AS inserted FOR EACH STATEMENT EXECUTE FUNCTION count_progress_inserted();

CREATE FUNCTION count_progress_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
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
    RETURN NULL;
END
$$;
CREATE TRIGGER progress_deleted AFTER DELETE ON user_card_progress
    REFERENCING OLD TABLE AS deleted FOR EACH STATEMENT EXECUTE FUNCTION count_progress_deleted();

CREATE FUNCTION count_progress_updated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Most ratings leave the status as it was: then the sums are zero and the row is not written.
    UPDATE user_stats AS s
       SET new_cards = s.new_cards + d.new_cards,
           learning_cards = s.learning_cards + d.learning_cards,
           mastered_cards = s.mastered_cards + d.mastered_cards
      FROM (SELECT user_id,
                   sum(sign) FILTER (WHERE mastery_status = 'new') AS new_cards,
                   sum(sign) FILTER (WHERE mastery_status = 'learning') AS learning_cards,
                   sum(sign) FILTER (WHERE mastery_status = 'mastered') AS mastered_cards
              FROM (SELECT user_id, mastery_status, 1 AS sign FROM after_update
                    UNION ALL
                    SELECT user_id, mastery_status, -1 FROM before_update) AS changes
             GROUP BY user_id) AS raw
      CROSS JOIN LATERAL (SELECT coalesce(raw.new_cards, 0) AS new_cards,
                                 coalesce(raw.learning_cards, 0) AS learning_cards,
                                 coalesce(raw.mastered_cards, 0) AS mastered_cards) AS d
     WHERE s.user_id = raw.user_id
       AND (d.new_cards, d.learning_cards, d.mastered_cards) <> (0, 0, 0);
    RETURN NULL;
END
$$;
CREATE TRIGGER progress_updated AFTER UPDATE ON user_card_progress
    REFERENCING OLD TABLE AS before_update NEW TABLE AS after_update
    FOR EACH STATEMENT EXECUTE FUNCTION count_progress_updated();

-- The three rankings: list_users_by_recent, list_users_by_studied, list_users_by_streak.
CREATE INDEX idx_user_stats_recent ON user_stats (last_active_at DESC, user_id DESC);
CREATE INDEX idx_user_stats_studied ON user_stats (total_cards_studied DESC, user_id DESC);
CREATE INDEX idx_user_stats_streak ON user_stats (study_streak_days DESC, user_id DESC);
-- lapse_streaks: the streaks that have ended since somebody last looked.
CREATE INDEX idx_user_stats_lapsing ON user_stats (streak_lapses_at) WHERE study_streak_days > 0;
