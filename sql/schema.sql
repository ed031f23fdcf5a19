-- The whole schema, for reading: what the migrations (sql/migrations/) come to. Made by `make schema`, never by hand.
-- A database is made by `python -m server migrate`; `python -m server schema` prints its page, which then is this one.

-- =============================================================================
-- Tables and their indexes
-- =============================================================================

-- Courses: classes hold decks, decks hold cards.
CREATE TABLE classes (
    id            uuid NOT NULL DEFAULT gen_random_uuid(),
    name          text NOT NULL,
    description   text,
    icon          text,
    color         text,
    sort_order    integer NOT NULL DEFAULT 0,
    is_published  boolean NOT NULL DEFAULT false,
    created_at    timestamp with time zone NOT NULL DEFAULT now(),
    updated_at    timestamp with time zone NOT NULL DEFAULT now(),
    -- How the next review of a card is chosen. It may change at any time: review_log is kept whichever it is.
    scheduler     text NOT NULL DEFAULT 'fixed'::text,
    CONSTRAINT classes_pkey PRIMARY KEY (id),
    CONSTRAINT classes_color_length CHECK (length(color) <= 32),
    CONSTRAINT classes_description_length CHECK (length(description) <= 2000),
    CONSTRAINT classes_icon_length CHECK (length(icon) <= 64),
    CONSTRAINT classes_name_length CHECK (length(name) >= 1 AND length(name) <= 255),
    CONSTRAINT classes_scheduler_known CHECK (scheduler = ANY (ARRAY['fixed'::text, 'fsrs'::text])),
    CONSTRAINT classes_sort_order_positive CHECK (sort_order >= 0)
);

-- The decks of a class.
CREATE TABLE decks (
    id            uuid NOT NULL DEFAULT gen_random_uuid(),
    class_id      uuid NOT NULL,
    name          text NOT NULL,
    description   text,
    sort_order    integer NOT NULL DEFAULT 0,
    is_published  boolean NOT NULL DEFAULT false,
    created_at    timestamp with time zone NOT NULL DEFAULT now(),
    updated_at    timestamp with time zone NOT NULL DEFAULT now(),
    CONSTRAINT decks_pkey PRIMARY KEY (id),
    CONSTRAINT decks_class_id_fkey FOREIGN KEY (class_id) REFERENCES classes(id) ON DELETE CASCADE,
    CONSTRAINT decks_description_length CHECK (length(description) <= 2000),
    CONSTRAINT decks_name_length CHECK (length(name) >= 1 AND length(name) <= 255),
    CONSTRAINT decks_sort_order_positive CHECK (sort_order >= 0)
);
-- Serves list_class_decks and list_decks: the decks of a class in their order.
CREATE INDEX idx_decks_class_order ON decks (class_id, sort_order, name);
-- Serves list_published_classes: the published decks of a class.
CREATE INDEX idx_decks_class_published ON decks (class_id, is_published);

-- The cards of a deck.
CREATE TABLE flashcards (
    id            uuid NOT NULL DEFAULT gen_random_uuid(),
    deck_id       uuid NOT NULL,
    question      text NOT NULL,
    answer        text NOT NULL,
    explanation   text,
    -- Comma-separated tags of an imported file; kept so that nothing of it is lost.
    category      text,
    sort_order    integer NOT NULL DEFAULT 0,
    is_published  boolean NOT NULL DEFAULT false,
    created_at    timestamp with time zone NOT NULL DEFAULT now(),
    updated_at    timestamp with time zone NOT NULL DEFAULT now(),
    CONSTRAINT flashcards_pkey PRIMARY KEY (id),
    -- The target of the foreign key of user_card_progress.
    CONSTRAINT flashcards_id_deck_unique UNIQUE (id, deck_id),
    CONSTRAINT flashcards_deck_id_fkey FOREIGN KEY (deck_id) REFERENCES decks(id) ON DELETE CASCADE,
    CONSTRAINT flashcards_answer_length CHECK (length(answer) >= 1 AND length(answer) <= 5000),
    CONSTRAINT flashcards_category_length CHECK (length(category) <= 2000),
    CONSTRAINT flashcards_explanation_length CHECK (length(explanation) <= 2000),
    CONSTRAINT flashcards_question_length CHECK (length(question) >= 1 AND length(question) <= 5000),
    CONSTRAINT flashcards_sort_order_positive CHECK (sort_order >= 0)
);
-- Serves list_deck_cards and list_flashcards: the cards of a deck in their order, without a sort.
CREATE INDEX idx_flashcards_deck_order ON flashcards (deck_id, sort_order, id);
-- Serves list_class_decks and list_published_classes: the number of published cards, from the index alone.
CREATE INDEX idx_flashcards_deck_published ON flashcards (deck_id, is_published);

-- The migrations that this database has; written by migrate alone.
CREATE TABLE schema_migrations (
    name        text NOT NULL,
    sha256      text NOT NULL,
    applied_at  timestamp with time zone NOT NULL DEFAULT now(),
    CONSTRAINT schema_migrations_pkey PRIMARY KEY (name)
);

-- Accounts.
CREATE TABLE users (
    id                uuid NOT NULL DEFAULT gen_random_uuid(),
    -- In its normal form (server/email_addresses.py).
    email             text NOT NULL,
    -- Argon2. Null for people who only ever sign in with an external issuer.
    password_hash     text,
    name              text,
    role              text NOT NULL DEFAULT 'user'::text,
    -- Selects the limits of config/ratelimits.toml; null is everybody's plan.
    plan              text,
    -- IANA name; the day of a study streak begins at midnight there.
    time_zone         text NOT NULL DEFAULT 'UTC'::text,
    external_issuer   text,
    external_subject  text,
    deactivated_at    timestamp with time zone,
    created_at        timestamp with time zone NOT NULL DEFAULT now(),
    updated_at        timestamp with time zone NOT NULL DEFAULT now(),
    CONSTRAINT users_pkey PRIMARY KEY (id),
    CONSTRAINT users_email_unique UNIQUE (email),
    CONSTRAINT users_external_identity_unique UNIQUE (external_issuer, external_subject),
    CONSTRAINT users_email_is_normal CHECK (email = lower(email) AND length(email) >= 3 AND length(email) <= 254),
    CONSTRAINT users_external_identity_whole CHECK ((external_issuer IS NULL) = (external_subject IS NULL)),
    CONSTRAINT users_name_length CHECK (length(name) >= 1 AND length(name) <= 255),
    CONSTRAINT users_role_known CHECK (role = ANY (ARRAY['user'::text, 'admin'::text]))
);
-- Serves list_accounts of the admins, and lock_admins.
CREATE INDEX idx_users_admins ON users (created_at DESC, id DESC) WHERE role = 'admin'::text;
-- Serves list_accounts: newest first.
CREATE INDEX idx_users_created ON users (created_at DESC, id DESC);
-- Serves find_user_by_email, create_user and create_external_user: the few addresses that were stored before addresses
-- were normalised by NFKC, by their normal form.
CREATE INDEX idx_users_email_before_nfkc ON users (lower(NORMALIZE(email, NFKC))) WHERE email <> lower(NORMALIZE(email, NFKC));

-- The cards that users have bookmarked.
CREATE TABLE bookmarks (
    user_id       uuid NOT NULL,
    flashcard_id  uuid NOT NULL,
    created_at    timestamp with time zone NOT NULL DEFAULT now(),
    CONSTRAINT bookmarks_pkey PRIMARY KEY (user_id, flashcard_id),
    CONSTRAINT bookmarks_flashcard_id_fkey FOREIGN KEY (flashcard_id) REFERENCES flashcards(id) ON DELETE CASCADE,
    CONSTRAINT bookmarks_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE
);
-- Serves the deletion of a card.
CREATE INDEX idx_bookmarks_flashcard ON bookmarks (flashcard_id);
-- Serves list_bookmarks: newest first.
CREATE INDEX idx_bookmarks_user_created ON bookmarks (user_id, created_at DESC, flashcard_id DESC);

-- The answers of writes, kept in the transaction of their effect: the same request with the same Idempotency-Key gets
-- the same answer and changes nothing. A write that failed leaves no row.
CREATE TABLE idempotency_keys (
    user_id      uuid NOT NULL,
    key          text NOT NULL,
    -- SHA-256 of the request: the same key on another request is a client's mistake.
    fingerprint  bytea NOT NULL,
    -- Null only inside the transaction that does the write, so that no other transaction sees it null.
    status       smallint,
    location     text,
    body         bytea,
    created_at   timestamp with time zone NOT NULL DEFAULT now(),
    -- The cache keys that the write made stale. A repeated request invalidates them again: a worker may have died
    -- between its commit and the invalidation.
    stale        text[] NOT NULL DEFAULT '{}'::text[],
    -- Makes the second of two simultaneous requests wait for the first.
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (user_id, key),
    CONSTRAINT idempotency_keys_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
    CONSTRAINT idempotency_keys_fingerprint_is_sha256 CHECK (octet_length(fingerprint) = 32),
    CONSTRAINT idempotency_keys_key_length CHECK (length(key) >= 1 AND length(key) <= 255),
    CONSTRAINT idempotency_keys_status_successful CHECK (status >= 200 AND status <= 299)
);
-- Serves claim_idempotency_key, which deletes the oldest expired keys of anybody.
CREATE INDEX idx_idempotency_keys_created ON idempotency_keys (created_at);

-- What FSRS makes of the log of a card: one row a user and card, made by the first rating while the class is set to
-- FSRS.
CREATE TABLE memory_states (
    user_id         uuid NOT NULL,
    flashcard_id    uuid NOT NULL,
    -- Days until the probability of recall has fallen to 90 %.
    stability       double precision NOT NULL,
    -- 1 (easy) to 10.
    difficulty      double precision NOT NULL,
    -- From learning to review; then review and relearning in turn.
    state           text NOT NULL,
    -- Which of the short (re)learning steps comes next; null in review.
    step            smallint,
    due_at          timestamp with time zone NOT NULL,
    last_review_at  timestamp with time zone NOT NULL,
    -- How many rows of review_log it was made of. If there are more, they are still to be included.
    reviews         integer NOT NULL,
    CONSTRAINT memory_states_pkey PRIMARY KEY (user_id, flashcard_id),
    CONSTRAINT memory_states_flashcard_id_fkey FOREIGN KEY (flashcard_id) REFERENCES flashcards(id) ON DELETE CASCADE,
    CONSTRAINT memory_states_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
    CONSTRAINT memory_states_difficulty_range CHECK (difficulty >= 1::double precision AND difficulty <= 10::double precision),
    CONSTRAINT memory_states_due_after_review CHECK (due_at >= last_review_at),
    CONSTRAINT memory_states_reviews_positive CHECK (reviews >= 1),
    CONSTRAINT memory_states_stability_positive CHECK (stability > 0::double precision),
    CONSTRAINT memory_states_state_known CHECK (state = ANY (ARRAY['learning'::text, 'review'::text, 'relearning'::text])),
    CONSTRAINT memory_states_step_fits_state CHECK ((step IS NULL) = (state = 'review'::text))
);
-- Serves the deletion of a card.
CREATE INDEX idx_memory_states_flashcard ON memory_states (flashcard_id);

-- One-time tokens that allow a new password to be set, at most one an account.
CREATE TABLE password_resets (
    user_id     uuid NOT NULL,
    -- SHA-256 of the token: a stolen table opens no account.
    token_hash  bytea NOT NULL,
    expires_at  timestamp with time zone NOT NULL,
    CONSTRAINT password_resets_pkey PRIMARY KEY (user_id),
    CONSTRAINT password_resets_hash_unique UNIQUE (token_hash),
    CONSTRAINT password_resets_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
    CONSTRAINT password_resets_hash_is_sha256 CHECK (octet_length(token_hash) = 32)
);

-- Refresh tokens, one row each. All that descend from one sign-in are a family.
CREATE TABLE refresh_tokens (
    id             uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id        uuid NOT NULL,
    -- The reuse of a token that was exchanged already ends its family.
    family_id      uuid NOT NULL,
    -- SHA-256 of the token: a stolen table opens no account.
    token_hash     bytea NOT NULL,
    created_at     timestamp with time zone NOT NULL DEFAULT now(),
    expires_at     timestamp with time zone NOT NULL,
    -- When it was exchanged for its successor.
    used_at        timestamp with time zone,
    revoked_at     timestamp with time zone,
    -- When it was exchanged for the second time: two tabs of a browser may do so at once.
    used_again_at  timestamp with time zone,
    CONSTRAINT refresh_tokens_pkey PRIMARY KEY (id),
    CONSTRAINT refresh_tokens_hash_unique UNIQUE (token_hash),
    CONSTRAINT refresh_tokens_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
    CONSTRAINT refresh_tokens_hash_is_sha256 CHECK (octet_length(token_hash) = 32)
);
-- Serves add_refresh_token, which deletes the oldest expired tokens of anybody.
CREATE INDEX idx_refresh_tokens_expires ON refresh_tokens (expires_at);
-- Serves revoke_token_family.
CREATE INDEX idx_refresh_tokens_family ON refresh_tokens (family_id);
-- Serves end_sign_ins, and the deletion of a user.
CREATE INDEX idx_refresh_tokens_user ON refresh_tokens (user_id, expires_at);

-- One row a rating, in every class. What is derived (memory_states, user_active_days, streaks) can be rebuilt from it.
CREATE TABLE review_log (
    id                bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    user_id           uuid NOT NULL,
    flashcard_id      uuid NOT NULL,
    confidence_level  smallint NOT NULL,
    response_time_ms  integer,
    rated_at          timestamp with time zone NOT NULL,
    -- The date where the user was. Null in what a release wrote that did not know it; lapses_at too.
    day               date,
    -- As in user_active_days.
    lapses_at         timestamp with time zone,
    CONSTRAINT review_log_pkey PRIMARY KEY (id),
    CONSTRAINT review_log_flashcard_id_fkey FOREIGN KEY (flashcard_id) REFERENCES flashcards(id) ON DELETE CASCADE,
    CONSTRAINT review_log_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
    CONSTRAINT review_log_confidence_range CHECK (confidence_level >= 1 AND confidence_level <= 5),
    CONSTRAINT review_log_response_time_positive CHECK (response_time_ms >= 0)
);
-- Serves the deletion of a card.
CREATE INDEX idx_review_log_flashcard ON review_log (flashcard_id);
-- Serves list_reviews, find_rating_facts and record_ratings: the reviews of a card by one user, oldest first.
CREATE INDEX idx_review_log_user_flashcard ON review_log (user_id, flashcard_id, rated_at, id);

-- Study sessions. The figures are counted once, when a session ends.
CREATE TABLE study_sessions (
    id                  uuid NOT NULL DEFAULT gen_random_uuid(),
    user_id             uuid NOT NULL,
    started_at          timestamp with time zone NOT NULL DEFAULT now(),
    -- Null while the session runs; set once, together with the three figures.
    ended_at            timestamp with time zone,
    cards_studied       integer,
    duration_seconds    integer,
    average_confidence  numeric(3,2),
    CONSTRAINT study_sessions_pkey PRIMARY KEY (id),
    -- The target of the foreign key of study_session_decks.
    CONSTRAINT study_sessions_id_user_unique UNIQUE (id, user_id),
    CONSTRAINT study_sessions_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
    CONSTRAINT study_sessions_ended_whole CHECK ((ended_at IS NULL) = (cards_studied IS NULL) AND (ended_at IS NULL) = (duration_seconds IS NULL)),
    CONSTRAINT study_sessions_ends_after_start CHECK (ended_at >= started_at)
);
-- Serves list_sessions: the sessions of a user, newest first.
CREATE INDEX idx_study_sessions_user_started ON study_sessions (user_id, started_at DESC, id DESC);

-- One row a rating that named a session: the source of the session's figures.
CREATE TABLE session_cards (
    id                bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
    session_id        uuid NOT NULL,
    flashcard_id      uuid NOT NULL,
    confidence_level  smallint NOT NULL,
    response_time_ms  integer,
    rated_at          timestamp with time zone NOT NULL DEFAULT now(),
    CONSTRAINT session_cards_pkey PRIMARY KEY (id),
    CONSTRAINT session_cards_flashcard_id_fkey FOREIGN KEY (flashcard_id) REFERENCES flashcards(id) ON DELETE CASCADE,
    CONSTRAINT session_cards_session_id_fkey FOREIGN KEY (session_id) REFERENCES study_sessions(id) ON DELETE CASCADE,
    CONSTRAINT session_cards_confidence_range CHECK (confidence_level >= 1 AND confidence_level <= 5),
    CONSTRAINT session_cards_response_time_positive CHECK (response_time_ms >= 0)
);
-- Serves the deletion of a card.
CREATE INDEX idx_session_cards_flashcard ON session_cards (flashcard_id);
-- Serves end_session, which counts the ratings of a session.
CREATE INDEX idx_session_cards_session ON session_cards (session_id, flashcard_id);

-- The decks that a session was started for. It has the user, so that one index finds a user's sessions of a deck.
CREATE TABLE study_session_decks (
    session_id  uuid NOT NULL,
    user_id     uuid NOT NULL,
    deck_id     uuid NOT NULL,
    CONSTRAINT study_session_decks_pkey PRIMARY KEY (session_id, deck_id),
    CONSTRAINT study_session_decks_deck_id_fkey FOREIGN KEY (deck_id) REFERENCES decks(id) ON DELETE CASCADE,
    CONSTRAINT study_session_decks_session_of_user FOREIGN KEY (session_id, user_id) REFERENCES study_sessions(id, user_id) ON DELETE CASCADE
);
-- Serves the deletion of a deck.
CREATE INDEX idx_study_session_decks_deck ON study_session_decks (deck_id);
-- Serves list_deck_sessions: a user's sessions of one deck.
CREATE INDEX idx_study_sessions_user_deck ON study_session_decks (user_id, deck_id, session_id);

-- The days on which a user studied. A streak follows from them in whatever order they arrive: a device that was offline
-- brings a day that fills a gap.
CREATE TABLE user_active_days (
    user_id    uuid NOT NULL,
    -- The date where the user was.
    day        date NOT NULL,
    -- The first rating of that day.
    first_at   timestamp with time zone NOT NULL,
    -- Midnight at the end of the day after it, where the user was: a streak that is not continued before reads 0.
    lapses_at  timestamp with time zone NOT NULL,
    CONSTRAINT user_active_days_pkey PRIMARY KEY (user_id, day),
    CONSTRAINT user_active_days_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
    CONSTRAINT user_active_days_lapse_later CHECK (lapses_at > first_at)
);

-- One row a user and card, made by the first rating. Its key is idx_user_card_progress_user_flashcard.
CREATE TABLE user_card_progress (
    user_id           uuid NOT NULL,
    flashcard_id      uuid NOT NULL,
    confidence_level  smallint NOT NULL,
    -- new (confidence 1..2), learning (3) or mastered (4..5): each rating decides anew.
    mastery_status    text NOT NULL,
    times_seen        integer NOT NULL DEFAULT 1,
    last_seen_at      timestamp with time zone NOT NULL,
    next_review_at    timestamp with time zone NOT NULL,
    created_at        timestamp with time zone NOT NULL DEFAULT now(),
    -- The deck of the card. The foreign key keeps it true: a card that moves to another deck takes its progress along.
    deck_id           uuid NOT NULL,
    -- When the row was last written. A user's ratings happen one after another (lock_user_stats), and this is the time
    -- within that lock: in the order of a user's changes it never falls behind one that was visible before. What was
    -- there before this column counts as changed when the column came. Not indexed: a rating would no longer be an
    -- update in place, and list_changed_progress reads the rows of one user alone.
    changed_at        timestamp with time zone NOT NULL DEFAULT now(),
    CONSTRAINT user_card_progress_flashcard_id_fkey FOREIGN KEY (flashcard_id, deck_id) REFERENCES flashcards(id, deck_id) ON UPDATE CASCADE ON DELETE CASCADE,
    CONSTRAINT user_card_progress_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
    CONSTRAINT user_card_progress_confidence_range CHECK (confidence_level >= 1 AND confidence_level <= 5),
    CONSTRAINT user_card_progress_mastery_known CHECK (mastery_status = ANY (ARRAY['new'::text, 'learning'::text, 'mastered'::text])),
    CONSTRAINT user_card_progress_times_seen_positive CHECK (times_seen >= 1)
);
-- Serves the deletion of a card, and of all progress on a deck at once.
CREATE INDEX idx_user_card_progress_deck_flashcard ON user_card_progress (deck_id, flashcard_id);
-- Serves count_mastery: the exact recount of one user's cards by mastery, from the index alone.
CREATE INDEX idx_user_card_progress_mastery ON user_card_progress (user_id, mastery_status);
-- Serves record_ratings, get_card_progress and every overlay: the progress of a user on a card.
CREATE UNIQUE INDEX idx_user_card_progress_user_flashcard ON user_card_progress (user_id, flashcard_id);

-- How many cards of a deck a user has studied, by mastery, published or not: a row for each deck with such a card.
-- Publishing, hiding or moving a deck or class writes nothing here: readers subtract the few cards that are hidden.
CREATE TABLE user_deck_stats (
    user_id         uuid NOT NULL,
    -- No foreign key: it would make every rating lock the row of its deck, and this row goes with its last card.
    deck_id         uuid NOT NULL,
    new_cards       integer NOT NULL,
    learning_cards  integer NOT NULL,
    mastered_cards  integer NOT NULL,
    CONSTRAINT user_deck_stats_pkey PRIMARY KEY (user_id, deck_id),
    CONSTRAINT user_deck_stats_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
    CONSTRAINT user_deck_stats_counts_positive CHECK (new_cards >= 0 AND learning_cards >= 0 AND mastered_cards >= 0)
) WITH (fillfactor=80);

-- The figures of a user, kept exact in the transaction that changes them, so that no page counts rows. Its row is also
-- locked first by every write of the user: writes happen one after another and can't deadlock.
CREATE TABLE user_stats (
    user_id                   uuid NOT NULL,
    new_cards                 integer NOT NULL DEFAULT 0,
    learning_cards            integer NOT NULL DEFAULT 0,
    mastered_cards            integer NOT NULL DEFAULT 0,
    total_cards_studied       integer NOT NULL GENERATED ALWAYS AS (new_cards + learning_cards + mastered_cards) STORED,
    total_study_time_seconds  bigint NOT NULL DEFAULT 0,
    -- The length of the last run of active days (user_active_days).
    study_streak_days         integer NOT NULL DEFAULT 0,
    -- When the streak reads 0 unless the user studies before: midnight, a day after the last active day. A streak that
    -- ends is not written.
    streak_lapses_at          timestamp with time zone NOT NULL DEFAULT '-infinity'::timestamp with time zone,
    last_active_date          date,
    -- The ranking needs a value for people who have not studied yet: '-infinity' puts them last.
    last_active_at            timestamp with time zone NOT NULL DEFAULT '-infinity'::timestamp with time zone,
    CONSTRAINT user_stats_pkey PRIMARY KEY (user_id),
    CONSTRAINT user_stats_user_id_fkey FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE,
    CONSTRAINT user_stats_counts_positive CHECK (new_cards >= 0 AND learning_cards >= 0 AND mastered_cards >= 0 AND study_streak_days >= 0 AND total_study_time_seconds >= 0),
    CONSTRAINT user_stats_streak_whole CHECK ((study_streak_days = 0) = (streak_lapses_at = '-infinity'::timestamp with time zone))
);
-- Serves list_users_by_recent.
CREATE INDEX idx_user_stats_recent ON user_stats (last_active_at DESC, user_id DESC);
-- Serves list_users_by_streak: the longest streaks of each moment at which streaks lapse, of which few lie ahead.
CREATE INDEX idx_user_stats_streak ON user_stats (streak_lapses_at DESC, study_streak_days DESC, user_id DESC);
-- Serves list_users_by_studied.
CREATE INDEX idx_user_stats_studied ON user_stats (total_cards_studied DESC, user_id DESC);

-- =============================================================================
-- Functions, and the triggers that run them
-- =============================================================================

SET check_function_bodies = off;

-- Takes an Idempotency-Key for this transaction, or gives what was answered under it; an answer has a status, a key
-- that is now the caller's has none. Waits for the transaction that holds the key. A key lives for 24 hours; each claim
-- deletes two expired ones of anybody, twice as many as it adds.
CREATE FUNCTION claim_idempotency_key(given_user uuid, given_key text, given_fingerprint bytea, OUT fingerprint bytea, OUT status smallint, OUT location text, OUT body bytea, OUT stale text[])
 RETURNS record
 LANGUAGE plpgsql
 SET enable_seqscan TO 'off'
AS $function$
DECLARE
    oldest timestamptz := now() - interval '24 hours';
    known record;
BEGIN
    IF EXISTS (SELECT FROM idempotency_keys AS k WHERE k.created_at <= oldest) THEN
        WITH expired AS (
            SELECT k.user_id, k.key
              FROM idempotency_keys AS k
             WHERE k.created_at <= oldest AND (k.user_id, k.key) <> (given_user, given_key)
             ORDER BY k.created_at
             LIMIT 2
               FOR UPDATE SKIP LOCKED
        )
        DELETE FROM idempotency_keys AS k USING expired AS e WHERE k.user_id = e.user_id AND k.key = e.key;
    END IF;
    LOOP
        INSERT INTO idempotency_keys AS k (user_id, key, fingerprint)
        VALUES (given_user, given_key, given_fingerprint)
            ON CONFLICT DO NOTHING;
        IF FOUND THEN
            EXIT;
        END IF;
        SELECT * INTO known FROM idempotency_keys AS k WHERE k.user_id = given_user AND k.key = given_key FOR UPDATE;
        IF known.created_at > oldest THEN
            fingerprint := known.fingerprint;
            status := known.status;
            location := known.location;
            body := known.body;
            stale := known.stale;
            RETURN;
        ELSIF FOUND THEN
            UPDATE idempotency_keys AS k
               SET fingerprint = given_fingerprint, status = NULL, location = NULL, body = NULL, stale = '{}',
                   created_at = now()
             WHERE k.user_id = given_user AND k.key = given_key;
            EXIT;
        END IF;
        -- Whoever had the key has just given it back.
    END LOOP;
    fingerprint := given_fingerprint;
    stale := '{}';
END
$function$;

-- Takes progress that is gone off the counters.
CREATE FUNCTION count_progress_deleted()
 RETURNS trigger
 LANGUAGE plpgsql
 SET enable_seqscan TO 'off'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
AS $function$
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
$function$;
-- Once a statement, also when a class takes its cards along.
CREATE TRIGGER progress_deleted AFTER DELETE ON user_card_progress REFERENCING OLD TABLE AS deleted
    FOR EACH STATEMENT EXECUTE FUNCTION count_progress_deleted();

-- Counts new progress in user_stats and user_deck_stats. Two rules hold in all three of these functions. Locks are
-- taken in one order by every transaction: cards, then the users' rows of user_stats by user_id, then progress and
-- user_deck_stats; a transaction that holds a row of user_stats may recount that user. And only plans along an index
-- are allowed, as a session keeps the plan of a statement in a function: made for the deletion of a large deck it would
-- be a scan, and stay one for the single ratings that follow on the same connection.
CREATE FUNCTION count_progress_inserted()
 RETURNS trigger
 LANGUAGE plpgsql
 SET enable_seqscan TO 'off'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
AS $function$
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
$function$;
-- Once a statement, whatever makes the rows.
CREATE TRIGGER progress_inserted AFTER INSERT ON user_card_progress REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION count_progress_inserted();

-- Counts progress that has changed its mastery or its deck. Most ratings leave both as they were, and write nothing
-- here.
CREATE FUNCTION count_progress_updated()
 RETURNS trigger
 LANGUAGE plpgsql
 SET enable_seqscan TO 'off'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
AS $function$
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
$function$;
-- Once a statement, also when a card changes its deck.
CREATE TRIGGER progress_updated AFTER UPDATE ON user_card_progress REFERENCING OLD TABLE AS before_update NEW TABLE AS after_update
    FOR EACH STATEMENT EXECUTE FUNCTION count_progress_updated();

-- What a user has of the published cards of some decks, by mastery, rows without cards left out: the counters of the
-- decks, less the user's cards that are hidden in them. Asked with every rating (record_ratings). A function, because a
-- session keeps its plan: planning took twice as long as the rest of the statement.
CREATE FUNCTION count_published_cards(of_user uuid, of_decks uuid[])
 RETURNS TABLE(deck_id uuid, mastery_status text, cards bigint)
 LANGUAGE plpgsql
 STABLE
 SET enable_seqscan TO 'off'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
AS $function$
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
$function$;

-- A user has figures from the first moment, so that every later change is an UPDATE of an existing row.
CREATE FUNCTION create_user_stats()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    INSERT INTO user_stats (user_id) VALUES (NEW.id);
    RETURN NULL;
END
$function$;
-- Each account has its row of figures.
CREATE TRIGGER users_have_stats AFTER INSERT ON users
    FOR EACH ROW EXECUTE FUNCTION create_user_stats();

-- The same for all decks of a class.
CREATE FUNCTION delete_progress_in_class()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM FROM flashcards WHERE deck_id IN (SELECT id FROM decks WHERE class_id = OLD.id) ORDER BY id FOR UPDATE;
    DELETE FROM user_card_progress WHERE deck_id IN (SELECT id FROM decks WHERE class_id = OLD.id);
    RETURN OLD;
END
$function$;
-- Before the foreign keys would delete the progress deck by deck.
CREATE TRIGGER classes_take_progress BEFORE DELETE ON classes
    FOR EACH ROW EXECUTE FUNCTION delete_progress_in_class();

-- Deletes the progress on a deck in one statement, so that the counters of each user are written once and not once a
-- card; after all of its cards are locked, so that ratings of them have ended or wait.
CREATE FUNCTION delete_progress_in_deck()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    PERFORM FROM flashcards WHERE deck_id = OLD.id ORDER BY id FOR UPDATE;
    DELETE FROM user_card_progress WHERE deck_id = OLD.id;
    RETURN OLD;
END
$function$;
-- Before the foreign keys would delete the progress card by card.
CREATE TRIGGER decks_take_progress BEFORE DELETE ON decks
    FOR EACH ROW EXECUTE FUNCTION delete_progress_in_deck();

-- Progress on a card as the API answers it, in JSON: record_ratings makes its answer where it keeps it.
CREATE FUNCTION describe_progress(progress user_card_progress)
 RETURNS text
 LANGUAGE sql
 STABLE
AS $function$
    SELECT format(
        '{"flashcardId":"%s","confidenceLevel":%s,"masteryStatus":"%s","timesSeen":%s,'
        '"lastSeenDate":"%s","nextReviewDate":"%s"}',
        progress.flashcard_id, progress.confidence_level, progress.mastery_status, progress.times_seen,
        to_char(progress.last_seen_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
        to_char(progress.next_review_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
$function$;

-- Completes progress that names no deck. Locked as the foreign key will lock it: a card that is being moved is waited
-- for.
CREATE FUNCTION find_deck_of_progress()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    SELECT deck_id INTO NEW.deck_id FROM flashcards WHERE id = NEW.flashcard_id FOR KEY SHARE;
    RETURN NEW;
END
$function$;
-- A statement that records a rating need not know the deck.
CREATE TRIGGER progress_has_deck BEFORE INSERT ON user_card_progress
    FOR EACH ROW WHEN (new.deck_id IS NULL) EXECUTE FUNCTION find_deck_of_progress();

-- The days that the log of some users has and user_active_days has not, or not from so early or until so late: for
-- users above an id, up to another. Serves check-counters. A rating without a day belongs to the known day that it lies
-- in. That ends 24 hours before its streak lapses; where the clocks change, a moment in the hour that this is wrong by
-- belongs to the day that the time zone of the profile says.
CREATE FUNCTION find_missing_active_days(after_user uuid, last_user uuid)
 RETURNS TABLE(user_id uuid, day date, first_at timestamp with time zone, lapses_at timestamp with time zone)
 LANGUAGE sql
 STABLE
AS $function$
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
$function$;

-- Derives the streak from the active days: that of the last run of days. A day belongs to the run of the day before it
-- if the user studied on it before the streak had lapsed. In one time zone that means the very next day; for a
-- traveller, that a streak which was shown as living goes on.
CREATE FUNCTION keep_streaks()
 RETURNS trigger
 LANGUAGE plpgsql
 SET enable_seqscan TO 'off'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
AS $function$
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
$function$;
-- After the first rating of a day.
CREATE TRIGGER active_days_inserted AFTER INSERT ON user_active_days REFERENCING NEW TABLE AS noted
    FOR EACH STATEMENT EXECUTE FUNCTION keep_streaks();
-- After an earlier rating of a day that is known, or another midnight.
CREATE TRIGGER active_days_updated AFTER UPDATE ON user_active_days REFERENCING NEW TABLE AS noted
    FOR EACH STATEMENT EXECUTE FUNCTION keep_streaks();

-- A time zone, or UTC for one that this server does not know.
CREATE FUNCTION known_time_zone(time_zone text)
 RETURNS text
 LANGUAGE plpgsql
 STABLE
AS $function$
BEGIN
    PERFORM now() AT TIME ZONE time_zone;
    RETURN time_zone;
EXCEPTION WHEN invalid_parameter_value THEN
    RETURN 'UTC';
END
$function$;

-- Notes the day of a rating that names none, as it comes from an older release: the day that this release has just
-- written into user_stats, or the date in the time zone of the profile. At the end of the transaction, when a release
-- that knows of user_active_days has written it.
CREATE FUNCTION note_active_day()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
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
$function$;
-- Only for ratings of older releases: the present one names the day.
CREATE CONSTRAINT TRIGGER reviews_have_days AFTER INSERT ON review_log DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (new.day IS NULL) EXECUTE FUNCTION note_active_day();

-- By trigger, so that the ratings of every release are noted. clock_timestamp(): now() is the beginning of the
-- transaction, which may lie before another one that ended first.
CREATE FUNCTION note_progress_change()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
BEGIN
    NEW.changed_at := clock_timestamp();
    RETURN NEW;
END
$function$;
-- Not when a card changes its deck: that is no change of the progress, and is made outside of the user's lock.
CREATE TRIGGER progress_changes BEFORE INSERT OR UPDATE OF confidence_level, mastery_status, times_seen, last_seen_at, next_review_at ON user_card_progress
    FOR EACH ROW EXECUTE FUNCTION note_progress_change();

-- Records one rating in a class with the fixed scheduler, as record_ratings does for any. Three lines come of it: the
-- outcome; if wanted, the card's deck and how many of its published cards are new, learning and mastered to the user,
-- or of a repeated request the cache keys that it made stale; and the answer. They are one text, because a row of
-- columns costs several percent more to plan and to read.
CREATE FUNCTION rate_card(given_user uuid, given_card uuid, given_class uuid, level integer, mastery text, review_seconds integer, response_time_ms integer, given_session uuid, given_rated_at timestamp with time zone, given_day date, given_lapses_at timestamp with time zone, given_now timestamp with time zone, now_until timestamp with time zone, given_zone text, given_key text, given_fingerprint bytea, given_stale text[], counts_wanted boolean)
 RETURNS text
 LANGUAGE plpgsql
 SET enable_seqscan TO 'off'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
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
$function$;

-- Records ratings, all or none: the log, the session, progress, memories, the day, and the answer under its key. What
-- its caller has assumed (the class and the scheduler of a card, the time zone of the profile, how many reviews a
-- memory is made of) is checked under the locks; where something is otherwise, nothing happens.
CREATE FUNCTION record_ratings(given_user uuid, given_key text, given_fingerprint bytea, given_stale text[], is_batch boolean, counts_wanted boolean, given_zone text, given_now timestamp with time zone, now_until timestamp with time zone, flashcard_ids uuid[], confidence_levels smallint[], mastery_statuses text[], review_seconds integer[], response_times_ms integer[], session_ids uuid[], rated_ats timestamp with time zone[], days date[], lapses_ats timestamp with time zone[], card_ids uuid[], class_ids uuid[], own_sessions uuid[], memories jsonb, OUT outcome text, OUT status smallint, OUT location text, OUT body bytea, OUT stale text[], OUT counts json, OUT missing uuid[])
 RETURNS record
 LANGUAGE plpgsql
 SET enable_seqscan TO 'off'
 SET enable_hashjoin TO 'off'
 SET enable_mergejoin TO 'off'
 SET plan_cache_mode TO 'force_generic_plan'
AS $function$
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
$function$;
