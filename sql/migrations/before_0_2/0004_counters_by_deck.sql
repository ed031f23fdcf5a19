-- How far a user is in each deck and class, and who has the longest streak, without counting and without a clock.
--
-- user_deck_stats counts a user's cards by deck, published or not. So publishing, hiding or moving a deck or a class
-- costs nothing: a reader joins the counters of published decks, and takes off the few cards of them that are hidden.
-- Only a card that comes, goes or changes its deck touches counters, together with the progress rows it touches anyway.

-- Progress knows the deck of its card. The foreign key keeps that true: a card that moves takes its progress along
-- (and through the triggers below, the counters), and waits for ratings of it that are under way.
ALTER TABLE flashcards ADD CONSTRAINT flashcards_id_deck_unique UNIQUE (id, deck_id);
ALTER TABLE user_card_progress ADD COLUMN deck_id uuid;
UPDATE user_card_progress AS p SET deck_id = f.deck_id FROM flashcards AS f WHERE f.id = p.flashcard_id;
ALTER TABLE user_card_progress
    ALTER COLUMN deck_id SET NOT NULL,
    DROP CONSTRAINT user_card_progress_flashcard_id_fkey,
    ADD CONSTRAINT user_card_progress_flashcard_id_fkey FOREIGN KEY (flashcard_id, deck_id)
        REFERENCES flashcards (id, deck_id) ON UPDATE CASCADE ON DELETE CASCADE;
-- Serves the deletion of a card, and of a whole deck at once.
CREATE INDEX idx_user_card_progress_deck_flashcard ON user_card_progress (deck_id, flashcard_id);
DROP INDEX idx_user_card_progress_flashcard;

-- Who records a rating need not know the deck. Locked as the foreign key will lock it: a card that is being moved at
-- this moment is waited for.
CREATE FUNCTION find_deck_of_progress() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT deck_id INTO NEW.deck_id FROM flashcards WHERE id = NEW.flashcard_id FOR KEY SHARE;
    RETURN NEW;
END
$$;
CREATE TRIGGER progress_has_deck BEFORE INSERT ON user_card_progress
    FOR EACH ROW WHEN (NEW.deck_id IS NULL) EXECUTE FUNCTION find_deck_of_progress();

-- A row for each deck in which the user has studied a card, and for no other.
CREATE TABLE user_deck_stats (
    user_id         uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    -- No foreign key: it would make every rating lock its deck's row, and the row goes with its last card.
    deck_id         uuid NOT NULL,
    new_cards       integer NOT NULL,
    learning_cards  integer NOT NULL,
    mastered_cards  integer NOT NULL,
    PRIMARY KEY (user_id, deck_id),
    CONSTRAINT user_deck_stats_counts_positive CHECK (new_cards >= 0 AND learning_cards >= 0 AND mastered_cards >= 0)
) WITH (fillfactor = 80);  -- room for the next version of a row beside it: no index is written then

INSERT INTO user_deck_stats
SELECT user_id, deck_id,
       count(*) FILTER (WHERE mastery_status = 'new'),
       count(*) FILTER (WHERE mastery_status = 'learning'),
       count(*) FILTER (WHERE mastery_status = 'mastered')
  FROM user_card_progress
 GROUP BY user_id, deck_id;

-- The triggers of user_stats now keep both tables. Two rules hold in all of them:
-- * Locks are taken in one order by everybody: cards, then the users' rows of user_stats by user_id, then progress and
--   user_deck_stats. Whoever holds a user's row of user_stats may recount that user (check-counters --repair does).
-- * A session keeps the plan of a statement in a function. Made for the deletion of a large deck it would be a scan,
--   and stay one for the single ratings that follow on the same connection: only plans along an index are allowed.
CREATE OR REPLACE FUNCTION count_progress_inserted() RETURNS trigger LANGUAGE plpgsql
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

CREATE OR REPLACE FUNCTION count_progress_deleted() RETURNS trigger LANGUAGE plpgsql
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

CREATE OR REPLACE FUNCTION count_progress_updated() RETURNS trigger LANGUAGE plpgsql
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

-- The progress on a deck, or on all decks of a class, goes in one statement, so that each user's counters are written
-- once and not once a card; and after all of its cards are locked, so that ratings of them have ended or wait.
CREATE FUNCTION delete_progress_in_deck() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM flashcards WHERE deck_id = OLD.id ORDER BY id FOR UPDATE;
    DELETE FROM user_card_progress WHERE deck_id = OLD.id;
    RETURN OLD;
END
$$;
CREATE TRIGGER decks_take_progress BEFORE DELETE ON decks FOR EACH ROW EXECUTE FUNCTION delete_progress_in_deck();

CREATE FUNCTION delete_progress_in_class() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM flashcards WHERE deck_id IN (SELECT id FROM decks WHERE class_id = OLD.id) ORDER BY id FOR UPDATE;
    DELETE FROM user_card_progress WHERE deck_id IN (SELECT id FROM decks WHERE class_id = OLD.id);
    RETURN OLD;
END
$$;
CREATE TRIGGER classes_take_progress BEFORE DELETE ON classes FOR EACH ROW EXECUTE FUNCTION delete_progress_in_class();

-- Streaks that end do so without being written: the ranking reads when each one lapses. Those that live lapse at one
-- of the midnights ahead, of which there are a few for each time zone; list_users_by_streak reads the longest of each.
UPDATE user_stats SET streak_lapses_at = '-infinity' WHERE study_streak_days = 0;
ALTER TABLE user_stats
    ALTER COLUMN streak_lapses_at SET DEFAULT '-infinity',
    ALTER COLUMN streak_lapses_at SET NOT NULL,
    ADD CONSTRAINT user_stats_streak_whole CHECK ((study_streak_days = 0) = (streak_lapses_at = '-infinity'));
DROP INDEX idx_user_stats_lapsing;
DROP INDEX idx_user_stats_streak;
CREATE INDEX idx_user_stats_streak ON user_stats (streak_lapses_at DESC, study_streak_days DESC, user_id DESC);
