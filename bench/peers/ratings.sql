-- What the peers of the comparison keep for a rating: the tables that one would make for it, in a schema of their own.
-- Cards and users are those of the service.
CREATE SCHEMA peer;
CREATE TABLE peer.progress (
    user_id       uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    card_id       uuid NOT NULL REFERENCES flashcards ON DELETE CASCADE,
    confidence    smallint NOT NULL,
    mastery       text NOT NULL,
    times_seen    integer NOT NULL,
    last_seen     timestamptz NOT NULL,
    next_review   timestamptz NOT NULL,
    PRIMARY KEY (user_id, card_id)
);
CREATE TABLE peer.reviews (
    id                bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    user_id           uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    card_id           uuid NOT NULL REFERENCES flashcards ON DELETE CASCADE,
    confidence        smallint NOT NULL,
    response_time_ms  integer,
    rated_at          timestamptz NOT NULL
);
CREATE INDEX ON peer.reviews (user_id, card_id, rated_at);
CREATE TABLE peer.stats (
    user_id      uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    new          integer NOT NULL DEFAULT 0,
    learning     integer NOT NULL DEFAULT 0,
    mastered     integer NOT NULL DEFAULT 0,
    streak_days  integer NOT NULL DEFAULT 0,
    last_day     date,
    last_active  timestamptz
);
CREATE INDEX ON peer.stats (last_active DESC);
INSERT INTO peer.stats (user_id) SELECT id FROM users;
CREATE TABLE peer.idempotency_keys (
    user_id      uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    key          text NOT NULL,
    fingerprint  text NOT NULL,
    body         text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (user_id, key)
);
