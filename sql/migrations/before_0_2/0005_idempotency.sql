-- What a write has answered, kept in the transaction of its effect: who repeats it with the same Idempotency-Key gets
-- this answer, and changes nothing. A write that failed leaves no row.
CREATE TABLE idempotency_keys (
    user_id      uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    key          text NOT NULL,
    -- SHA-256 of the request: the same key on another request is a client's mistake.
    fingerprint  bytea NOT NULL,
    -- Null only inside the transaction that is doing the write, so nobody else ever sees it.
    status       smallint,
    location     text,
    body         bytea,
    created_at   timestamptz NOT NULL DEFAULT now(),
    -- Its index is what makes the second of two simultaneous requests wait for the first.
    PRIMARY KEY (user_id, key),
    CONSTRAINT idempotency_keys_key_length CHECK (length(key) BETWEEN 1 AND 255),
    CONSTRAINT idempotency_keys_fingerprint_is_sha256 CHECK (octet_length(fingerprint) = 32),
    CONSTRAINT idempotency_keys_status_successful CHECK (status BETWEEN 200 AND 299)
);
-- Serves claim_idempotency_key, which deletes the oldest expired keys of anybody.
CREATE INDEX idx_idempotency_keys_created ON idempotency_keys (created_at);
