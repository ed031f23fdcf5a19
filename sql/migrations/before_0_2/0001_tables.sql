-- Every table of the service. Constraints carry names: the code turns a violated name into an error a client understands.
-- All times are timestamptz; a row that belongs to a user goes with the user.

CREATE TABLE users (
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email           text NOT NULL,
    -- Null for people who only ever sign in with an external issuer.
    password_hash   text,
    name            text,
    role            text NOT NULL DEFAULT 'user',
    -- Selects the limits of config/ratelimits.toml; null is everybody's plan.
    plan            text,
    -- IANA name; the day of a study streak begins at midnight there.
    time_zone       text NOT NULL DEFAULT 'UTC',
    external_issuer  text,
    external_subject text,
    deactivated_at  timestamptz,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_email_unique UNIQUE (email),
    CONSTRAINT users_external_identity_unique UNIQUE (external_issuer, external_subject),
    CONSTRAINT users_email_is_normal CHECK (email = lower(email) AND length(email) BETWEEN 3 AND 254),
    CONSTRAINT users_name_length CHECK (length(name) BETWEEN 1 AND 255),
    CONSTRAINT users_role_known CHECK (role IN ('user', 'admin')),
    CONSTRAINT users_external_identity_whole CHECK ((external_issuer IS NULL) = (external_subject IS NULL))
);

CREATE TABLE refresh_tokens (
    id          uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id     uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    -- All tokens that descend from one login; the reuse of a spent one ends them all.
    family_id   uuid NOT NULL,
    -- SHA-256 of the token: a stolen table opens no session.
    token_hash  bytea NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    expires_at  timestamptz NOT NULL,
    -- Set when it was exchanged for its successor.
    used_at     timestamptz,
    revoked_at  timestamptz,
    CONSTRAINT refresh_tokens_hash_unique UNIQUE (token_hash),
    CONSTRAINT refresh_tokens_hash_is_sha256 CHECK (octet_length(token_hash) = 32)
);
-- Serves revoke_token_family.
CREATE INDEX idx_refresh_tokens_family ON refresh_tokens (family_id);
-- Serves the deletion of a user, and of a user's expired tokens.
CREATE INDEX idx_refresh_tokens_user ON refresh_tokens (user_id, expires_at);

CREATE TABLE classes (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name          text NOT NULL,
    description   text,
    icon          text,
    color         text,
    sort_order    integer NOT NULL DEFAULT 0,
    is_published  boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT classes_name_length CHECK (length(name) BETWEEN 1 AND 255),
    CONSTRAINT classes_description_length CHECK (length(description) <= 2000),
    CONSTRAINT classes_icon_length CHECK (length(icon) <= 64),
    CONSTRAINT classes_color_length CHECK (length(color) <= 32),
    CONSTRAINT classes_sort_order_positive CHECK (sort_order >= 0)
);

CREATE TABLE decks (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    class_id      uuid NOT NULL REFERENCES classes ON DELETE CASCADE,
    name          text NOT NULL,
    description   text,
    sort_order    integer NOT NULL DEFAULT 0,
    is_published  boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT decks_name_length CHECK (length(name) BETWEEN 1 AND 255),
    CONSTRAINT decks_description_length CHECK (length(description) <= 2000),
    CONSTRAINT decks_sort_order_positive CHECK (sort_order >= 0)
);

CREATE TABLE flashcards (
    id            uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    deck_id       uuid NOT NULL REFERENCES decks ON DELETE CASCADE,
    question      text NOT NULL,
    answer        text NOT NULL,
    explanation   text,
    -- Comma-separated tags of an imported file; kept so that nothing of it is lost.
    category      text,
    sort_order    integer NOT NULL DEFAULT 0,
    is_published  boolean NOT NULL DEFAULT false,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT flashcards_question_length CHECK (length(question) BETWEEN 1 AND 5000),
    CONSTRAINT flashcards_answer_length CHECK (length(answer) BETWEEN 1 AND 5000),
    CONSTRAINT flashcards_explanation_length CHECK (length(explanation) <= 2000),
    CONSTRAINT flashcards_category_length CHECK (length(category) <= 2000),
    CONSTRAINT flashcards_sort_order_positive CHECK (sort_order >= 0)
);

-- One row a user and card, made by the first rating. Its key is idx_user_card_progress_user_flashcard.
CREATE TABLE user_card_progress (
    user_id           uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    flashcard_id      uuid NOT NULL REFERENCES flashcards ON DELETE CASCADE,
    confidence_level  smallint NOT NULL,
    -- new (confidence 1..2) -> learning (3) -> mastered (4..5), and back: each rating decides anew.
    mastery_status    text NOT NULL,
    times_seen        integer NOT NULL DEFAULT 1,
    last_seen_at      timestamptz NOT NULL,
    next_review_at    timestamptz NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT user_card_progress_confidence_range CHECK (confidence_level BETWEEN 1 AND 5),
    CONSTRAINT user_card_progress_mastery_known CHECK (mastery_status IN ('new', 'learning', 'mastered')),
    CONSTRAINT user_card_progress_times_seen_positive CHECK (times_seen >= 1)
);
-- Serves the deletion of a card, a deck or a class.
CREATE INDEX idx_user_card_progress_flashcard ON user_card_progress (flashcard_id);

CREATE TABLE study_sessions (
    id                   uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id              uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    started_at           timestamptz NOT NULL DEFAULT now(),
    -- Null while the session runs; set once, together with the three figures.
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

-- The decks a session was started for. It carries the user, so that one index finds a user's sessions of a deck.
CREATE TABLE study_session_decks (
    session_id  uuid NOT NULL,
    user_id     uuid NOT NULL,
    deck_id     uuid NOT NULL REFERENCES decks ON DELETE CASCADE,
    PRIMARY KEY (session_id, deck_id),
    CONSTRAINT study_session_decks_session_of_user
        FOREIGN KEY (session_id, user_id) REFERENCES study_sessions (id, user_id) ON DELETE CASCADE
);
-- Serves the deletion of a deck.
CREATE INDEX idx_study_session_decks_deck ON study_session_decks (deck_id);

-- One row a rating that named a session: the source of the session's figures.
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
-- Serves end_session, which counts a session's ratings.
CREATE INDEX idx_session_cards_session ON session_cards (session_id, flashcard_id);
-- Serves the deletion of a card.
CREATE INDEX idx_session_cards_flashcard ON session_cards (flashcard_id);

CREATE TABLE bookmarks (
    user_id       uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    flashcard_id  uuid NOT NULL REFERENCES flashcards ON DELETE CASCADE,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, flashcard_id)
);
-- Serves list_bookmarks: newest first.
CREATE INDEX idx_bookmarks_user_created ON bookmarks (user_id, created_at DESC, flashcard_id DESC);
-- Serves the deletion of a card.
CREATE INDEX idx_bookmarks_flashcard ON bookmarks (flashcard_id);

-- A user's figures, kept exact in the transaction that changes them, so that no page ever counts rows.
-- Its row is also what a user's writes take first: they happen one after another and can't deadlock.
CREATE TABLE user_stats (
    user_id                   uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    new_cards                 integer NOT NULL DEFAULT 0,
    learning_cards            integer NOT NULL DEFAULT 0,
    mastered_cards            integer NOT NULL DEFAULT 0,
    total_cards_studied       integer NOT NULL GENERATED ALWAYS AS (new_cards + learning_cards + mastered_cards) STORED,
    total_study_time_seconds  bigint NOT NULL DEFAULT 0,
    study_streak_days         integer NOT NULL DEFAULT 0,
    -- The instant at which the streak reads 0 unless the user studies before: midnight, a day after the last active day.
    streak_lapses_at          timestamptz,
    last_active_date          date,
    -- The ranking needs a value for people who have not studied yet: '-infinity' puts them last in either direction of a tie.
    last_active_at            timestamptz NOT NULL DEFAULT '-infinity',
    CONSTRAINT user_stats_counts_positive CHECK (
        new_cards >= 0 AND learning_cards >= 0 AND mastered_cards >= 0
        AND study_streak_days >= 0 AND total_study_time_seconds >= 0
    )
);
