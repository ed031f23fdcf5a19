-- baseline
-- What users do with the cards: progress and its log, sessions, bookmarks, and the figures that are kept of each user.

CREATE TABLE user_card_progress (
    user_id           uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    flashcard_id      uuid NOT NULL,
    confidence_level  smallint NOT NULL,
    mastery_status    text NOT NULL,
    times_seen        integer NOT NULL DEFAULT 1,
    last_seen_at      timestamptz NOT NULL,
    next_review_at    timestamptz NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    deck_id           uuid NOT NULL,
    CONSTRAINT user_card_progress_flashcard_id_fkey FOREIGN KEY (flashcard_id, deck_id)
        REFERENCES flashcards (id, deck_id) ON UPDATE CASCADE ON DELETE CASCADE,
    CONSTRAINT user_card_progress_confidence_range CHECK (confidence_level BETWEEN 1 AND 5),
    CONSTRAINT user_card_progress_mastery_known CHECK (mastery_status IN ('new', 'learning', 'mastered')),
    CONSTRAINT user_card_progress_times_seen_positive CHECK (times_seen >= 1)
);
CREATE UNIQUE INDEX idx_user_card_progress_user_flashcard ON user_card_progress (user_id, flashcard_id);
CREATE INDEX idx_user_card_progress_mastery ON user_card_progress (user_id, mastery_status);
CREATE INDEX idx_user_card_progress_deck_flashcard ON user_card_progress (deck_id, flashcard_id);
COMMENT ON TABLE user_card_progress IS
    'One row a user and card, made by the first rating. Its key is idx_user_card_progress_user_flashcard.';
COMMENT ON COLUMN user_card_progress.mastery_status IS
    'new (confidence 1..2), learning (3) or mastered (4..5): each rating decides anew.';
COMMENT ON COLUMN user_card_progress.deck_id IS
    'The deck of the card. The foreign key keeps it true: a card that moves to another deck takes its progress along.';
COMMENT ON INDEX idx_user_card_progress_user_flashcard IS
    'Serves record_ratings (its conflict target), get_card_progress and every overlay: the progress of a user on '
    'a card.';
COMMENT ON INDEX idx_user_card_progress_mastery IS
    'Serves count_mastery: the exact recount of one user''s cards by mastery, from the index alone.';
COMMENT ON INDEX idx_user_card_progress_deck_flashcard IS
    'Serves the deletion of a card, and of all progress on a deck at once.';

CREATE TABLE review_log (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id           uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    flashcard_id      uuid NOT NULL REFERENCES flashcards ON DELETE CASCADE,
    confidence_level  smallint NOT NULL,
    response_time_ms  integer,
    rated_at          timestamptz NOT NULL,
    day               date,
    lapses_at         timestamptz,
    CONSTRAINT review_log_confidence_range CHECK (confidence_level BETWEEN 1 AND 5),
    CONSTRAINT review_log_response_time_positive CHECK (response_time_ms >= 0)
);
CREATE INDEX idx_review_log_user_flashcard ON review_log (user_id, flashcard_id, rated_at, id);
CREATE INDEX idx_review_log_flashcard ON review_log (flashcard_id);
COMMENT ON TABLE review_log IS
    'One row a rating, in every class. What is derived (memory_states, user_active_days, streaks) can be rebuilt '
    'from it.';
COMMENT ON COLUMN review_log.day IS
    'The date where the user was. Null in what a release wrote that did not know it; lapses_at too.';
COMMENT ON COLUMN review_log.lapses_at IS 'As in user_active_days.';
COMMENT ON INDEX idx_review_log_user_flashcard IS
    'Serves list_reviews and list_memory_states: the reviews of a card by one user, oldest first.';
COMMENT ON INDEX idx_review_log_flashcard IS 'Serves the deletion of a card.';

CREATE TABLE memory_states (
    user_id         uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    flashcard_id    uuid NOT NULL REFERENCES flashcards ON DELETE CASCADE,
    stability       double precision NOT NULL,
    difficulty      double precision NOT NULL,
    state           text NOT NULL,
    step            smallint,
    due_at          timestamptz NOT NULL,
    last_review_at  timestamptz NOT NULL,
    reviews         integer NOT NULL,
    PRIMARY KEY (user_id, flashcard_id),
    CONSTRAINT memory_states_stability_positive CHECK (stability > 0),
    CONSTRAINT memory_states_difficulty_range CHECK (difficulty BETWEEN 1 AND 10),
    CONSTRAINT memory_states_state_known CHECK (state IN ('learning', 'review', 'relearning')),
    CONSTRAINT memory_states_step_fits_state CHECK ((step IS NULL) = (state = 'review')),
    CONSTRAINT memory_states_due_after_review CHECK (due_at >= last_review_at),
    CONSTRAINT memory_states_reviews_positive CHECK (reviews >= 1)
);
CREATE INDEX idx_memory_states_flashcard ON memory_states (flashcard_id);
COMMENT ON TABLE memory_states IS
    'What FSRS makes of the log of a card: one row a user and card, made by the first rating while the class is '
    'set to FSRS.';
COMMENT ON COLUMN memory_states.stability IS 'Days until the probability of recall has fallen to 90 %.';
COMMENT ON COLUMN memory_states.difficulty IS '1 (easy) to 10.';
COMMENT ON COLUMN memory_states.state IS 'From learning to review; then review and relearning in turn.';
COMMENT ON COLUMN memory_states.step IS 'Which of the short (re)learning steps comes next; null in review.';
COMMENT ON COLUMN memory_states.reviews IS
    'How many rows of review_log it was made of. If there are more, they are still to be included.';
COMMENT ON INDEX idx_memory_states_flashcard IS 'Serves the deletion of a card.';

CREATE TABLE study_sessions (
    id                   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id              uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    started_at           timestamptz NOT NULL DEFAULT now(),
    ended_at             timestamptz,
    cards_studied        integer,
    duration_seconds     integer,
    average_confidence   numeric(3, 2),
    CONSTRAINT study_sessions_id_user_unique UNIQUE (id, user_id),
    CONSTRAINT study_sessions_ended_whole CHECK (
        (ended_at IS NULL) = (cards_studied IS NULL) AND (ended_at IS NULL) = (duration_seconds IS NULL)
    ),
    CONSTRAINT study_sessions_ends_after_start CHECK (ended_at >= started_at)
);
CREATE INDEX idx_study_sessions_user_started ON study_sessions (user_id, started_at DESC, id DESC);
COMMENT ON TABLE study_sessions IS 'Study sessions. The figures are counted once, when a session ends.';
COMMENT ON COLUMN study_sessions.ended_at IS 'Null while the session runs; set once, together with the three figures.';
COMMENT ON CONSTRAINT study_sessions_id_user_unique ON study_sessions IS
    'The target of the foreign key of study_session_decks.';
COMMENT ON INDEX idx_study_sessions_user_started IS 'Serves list_sessions: the sessions of a user, newest first.';

CREATE TABLE study_session_decks (
    session_id  uuid NOT NULL,
    user_id     uuid NOT NULL,
    deck_id     uuid NOT NULL REFERENCES decks ON DELETE CASCADE,
    PRIMARY KEY (session_id, deck_id),
    CONSTRAINT study_session_decks_session_of_user
        FOREIGN KEY (session_id, user_id) REFERENCES study_sessions (id, user_id) ON DELETE CASCADE
);
CREATE INDEX idx_study_session_decks_deck ON study_session_decks (deck_id);
CREATE INDEX idx_study_sessions_user_deck ON study_session_decks (user_id, deck_id, session_id);
COMMENT ON TABLE study_session_decks IS
    'The decks that a session was started for. It has the user, so that one index finds a user''s sessions of a deck.';
COMMENT ON INDEX idx_study_session_decks_deck IS 'Serves the deletion of a deck.';
COMMENT ON INDEX idx_study_sessions_user_deck IS 'Serves list_deck_sessions: a user''s sessions of one deck.';

CREATE TABLE session_cards (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    session_id        uuid NOT NULL REFERENCES study_sessions ON DELETE CASCADE,
    flashcard_id      uuid NOT NULL REFERENCES flashcards ON DELETE CASCADE,
    confidence_level  smallint NOT NULL,
    response_time_ms  integer,
    rated_at          timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT session_cards_confidence_range CHECK (confidence_level BETWEEN 1 AND 5),
    CONSTRAINT session_cards_response_time_positive CHECK (response_time_ms >= 0)
);
CREATE INDEX idx_session_cards_session ON session_cards (session_id, flashcard_id);
CREATE INDEX idx_session_cards_flashcard ON session_cards (flashcard_id);
COMMENT ON TABLE session_cards IS
    'One row a rating that named a session: the source of the session''s figures.';
COMMENT ON INDEX idx_session_cards_session IS 'Serves end_session, which counts the ratings of a session.';
COMMENT ON INDEX idx_session_cards_flashcard IS 'Serves the deletion of a card.';

CREATE TABLE bookmarks (
    user_id       uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    flashcard_id  uuid NOT NULL REFERENCES flashcards ON DELETE CASCADE,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, flashcard_id)
);
CREATE INDEX idx_bookmarks_user_created ON bookmarks (user_id, created_at DESC, flashcard_id DESC);
CREATE INDEX idx_bookmarks_flashcard ON bookmarks (flashcard_id);
COMMENT ON TABLE bookmarks IS 'The cards that users have bookmarked.';
COMMENT ON INDEX idx_bookmarks_user_created IS 'Serves list_bookmarks: newest first.';
COMMENT ON INDEX idx_bookmarks_flashcard IS 'Serves the deletion of a card.';

CREATE TABLE user_active_days (
    user_id    uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    day        date NOT NULL,
    first_at   timestamptz NOT NULL,
    lapses_at  timestamptz NOT NULL,
    PRIMARY KEY (user_id, day),
    CONSTRAINT user_active_days_lapse_later CHECK (lapses_at > first_at)
);
COMMENT ON TABLE user_active_days IS
    'The days on which a user studied. A streak follows from them in whatever order they arrive: a device that '
    'was offline brings a day that fills a gap.';
COMMENT ON COLUMN user_active_days.day IS 'The date where the user was.';
COMMENT ON COLUMN user_active_days.first_at IS 'The first rating of that day.';
COMMENT ON COLUMN user_active_days.lapses_at IS
    'Midnight at the end of the day after it, where the user was: a streak that is not continued before reads 0.';

CREATE TABLE user_stats (
    user_id                   uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    new_cards                 integer NOT NULL DEFAULT 0,
    learning_cards            integer NOT NULL DEFAULT 0,
    mastered_cards            integer NOT NULL DEFAULT 0,
    total_cards_studied       integer NOT NULL GENERATED ALWAYS AS (new_cards + learning_cards + mastered_cards) STORED,
    total_study_time_seconds  bigint NOT NULL DEFAULT 0,
    study_streak_days         integer NOT NULL DEFAULT 0,
    streak_lapses_at          timestamptz NOT NULL DEFAULT '-infinity',
    last_active_date          date,
    last_active_at            timestamptz NOT NULL DEFAULT '-infinity',
    CONSTRAINT user_stats_counts_positive CHECK (
        new_cards >= 0 AND learning_cards >= 0 AND mastered_cards >= 0
        AND study_streak_days >= 0 AND total_study_time_seconds >= 0
    ),
    CONSTRAINT user_stats_streak_whole CHECK ((study_streak_days = 0) = (streak_lapses_at = '-infinity'))
);
CREATE INDEX idx_user_stats_recent ON user_stats (last_active_at DESC, user_id DESC);
CREATE INDEX idx_user_stats_studied ON user_stats (total_cards_studied DESC, user_id DESC);
CREATE INDEX idx_user_stats_streak ON user_stats (streak_lapses_at DESC, study_streak_days DESC, user_id DESC);
COMMENT ON TABLE user_stats IS
    'The figures of a user, kept exact in the transaction that changes them, so that no page counts rows. Its row '
    'is also locked first by every write of the user: writes happen one after another and can''t deadlock.';
COMMENT ON COLUMN user_stats.study_streak_days IS
    'The length of the last run of active days (user_active_days).';
COMMENT ON COLUMN user_stats.streak_lapses_at IS
    'When the streak reads 0 unless the user studies before: midnight, a day after the last active day. A streak '
    'that ends is not written.';
COMMENT ON COLUMN user_stats.last_active_at IS
    'The ranking needs a value for people who have not studied yet: ''-infinity'' puts them last.';
COMMENT ON INDEX idx_user_stats_recent IS 'Serves list_users_by_recent.';
COMMENT ON INDEX idx_user_stats_studied IS 'Serves list_users_by_studied.';
COMMENT ON INDEX idx_user_stats_streak IS
    'Serves list_users_by_streak: the longest streaks of each moment at which streaks lapse, of which few lie ahead.';

CREATE TABLE user_deck_stats (
    user_id         uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    deck_id         uuid NOT NULL,
    new_cards       integer NOT NULL,
    learning_cards  integer NOT NULL,
    mastered_cards  integer NOT NULL,
    PRIMARY KEY (user_id, deck_id),
    CONSTRAINT user_deck_stats_counts_positive CHECK (new_cards >= 0 AND learning_cards >= 0 AND mastered_cards >= 0)
) WITH (fillfactor = 80);  -- room for the next version of a row beside it: no index is written then
COMMENT ON TABLE user_deck_stats IS
    'How many cards of a deck a user has studied, by mastery, published or not: a row for each deck with such a '
    'card. Publishing, hiding or moving a deck or class writes nothing here: readers subtract the few cards that '
    'are hidden.';
COMMENT ON COLUMN user_deck_stats.deck_id IS
    'No foreign key: it would make every rating lock the row of its deck, and this row goes with its last card.';
