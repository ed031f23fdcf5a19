-- baseline
-- Accounts, what signs them in, and the answers of their writes. Constraints carry names: the code turns a violated name
-- into an error that a client understands. All times are timestamptz; a row that belongs to a user goes with the user.

CREATE TABLE users (
    id               uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    email            text NOT NULL,
    password_hash    text,
    name             text,
    role             text NOT NULL DEFAULT 'user',
    plan             text,
    time_zone        text NOT NULL DEFAULT 'UTC',
    external_issuer  text,
    external_subject text,
    deactivated_at   timestamptz,
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT users_email_unique UNIQUE (email),
    CONSTRAINT users_external_identity_unique UNIQUE (external_issuer, external_subject),
    CONSTRAINT users_email_is_normal CHECK (email = lower(email) AND length(email) BETWEEN 3 AND 254),
    CONSTRAINT users_name_length CHECK (length(name) BETWEEN 1 AND 255),
    CONSTRAINT users_role_known CHECK (role IN ('user', 'admin')),
    CONSTRAINT users_external_identity_whole CHECK ((external_issuer IS NULL) = (external_subject IS NULL))
);
CREATE INDEX idx_users_created ON users (created_at DESC, id DESC);
CREATE INDEX idx_users_admins ON users (created_at DESC, id DESC) WHERE role = 'admin';
CREATE INDEX idx_users_email_before_nfkc ON users (lower(normalize(email, NFKC)))
 WHERE email <> lower(normalize(email, NFKC));
COMMENT ON TABLE users IS 'Accounts.';
COMMENT ON COLUMN users.email IS 'In its normal form (server/email_addresses.py).';
COMMENT ON COLUMN users.password_hash IS 'Argon2. Null for people who only ever sign in with an external issuer.';
COMMENT ON COLUMN users.plan IS 'Selects the limits of config/ratelimits.toml; null is everybody''s plan.';
COMMENT ON COLUMN users.time_zone IS 'IANA name; the day of a study streak begins at midnight there.';
COMMENT ON INDEX idx_users_created IS 'Serves list_accounts: newest first.';
COMMENT ON INDEX idx_users_admins IS 'Serves list_accounts of the admins, and lock_admins.';
COMMENT ON INDEX idx_users_email_before_nfkc IS
    'Serves find_user_by_email, create_user and create_external_user: the few addresses that were stored before '
    'addresses were normalised by NFKC, by their normal form.';

CREATE TABLE refresh_tokens (
    id             uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id        uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    family_id      uuid NOT NULL,
    token_hash     bytea NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    expires_at     timestamptz NOT NULL,
    used_at        timestamptz,
    revoked_at     timestamptz,
    used_again_at  timestamptz,
    CONSTRAINT refresh_tokens_hash_unique UNIQUE (token_hash),
    CONSTRAINT refresh_tokens_hash_is_sha256 CHECK (octet_length(token_hash) = 32)
);
CREATE INDEX idx_refresh_tokens_family ON refresh_tokens (family_id);
CREATE INDEX idx_refresh_tokens_user ON refresh_tokens (user_id, expires_at);
CREATE INDEX idx_refresh_tokens_expires ON refresh_tokens (expires_at);
COMMENT ON TABLE refresh_tokens IS 'Refresh tokens, one row each. All that descend from one sign-in are a family.';
COMMENT ON COLUMN refresh_tokens.family_id IS 'The reuse of a token that was exchanged already ends its family.';
COMMENT ON COLUMN refresh_tokens.token_hash IS 'SHA-256 of the token: a stolen table opens no account.';
COMMENT ON COLUMN refresh_tokens.used_at IS 'When it was exchanged for its successor.';
COMMENT ON COLUMN refresh_tokens.used_again_at IS
    'When it was exchanged for the second time: two tabs of a browser may do so at once.';
COMMENT ON INDEX idx_refresh_tokens_family IS 'Serves revoke_token_family.';
COMMENT ON INDEX idx_refresh_tokens_user IS 'Serves end_sign_ins, and the deletion of a user.';
COMMENT ON INDEX idx_refresh_tokens_expires IS
    'Serves add_refresh_token, which deletes the oldest expired tokens of anybody.';

CREATE TABLE password_resets (
    user_id     uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    token_hash  bytea NOT NULL,
    expires_at  timestamptz NOT NULL,
    CONSTRAINT password_resets_hash_unique UNIQUE (token_hash),
    CONSTRAINT password_resets_hash_is_sha256 CHECK (octet_length(token_hash) = 32)
);
COMMENT ON TABLE password_resets IS 'One-time tokens that allow a new password to be set, at most one an account.';
COMMENT ON COLUMN password_resets.token_hash IS 'SHA-256 of the token: a stolen table opens no account.';

CREATE TABLE idempotency_keys (
    user_id      uuid NOT NULL REFERENCES users ON DELETE CASCADE,
    key          text NOT NULL,
    fingerprint  bytea NOT NULL,
    status       smallint,
    location     text,
    body         bytea,
    created_at   timestamptz NOT NULL DEFAULT now(),
    stale        text[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (user_id, key),
    CONSTRAINT idempotency_keys_key_length CHECK (length(key) BETWEEN 1 AND 255),
    CONSTRAINT idempotency_keys_fingerprint_is_sha256 CHECK (octet_length(fingerprint) = 32),
    CONSTRAINT idempotency_keys_status_successful CHECK (status BETWEEN 200 AND 299)
);
CREATE INDEX idx_idempotency_keys_created ON idempotency_keys (created_at);
COMMENT ON TABLE idempotency_keys IS
    'The answers of writes, kept in the transaction of their effect: the same request with the same '
    'Idempotency-Key gets the same answer and changes nothing. A write that failed leaves no row.';
COMMENT ON COLUMN idempotency_keys.fingerprint IS
    'SHA-256 of the request: the same key on another request is a client''s mistake.';
COMMENT ON COLUMN idempotency_keys.status IS
    'Null only inside the transaction that does the write, so that no other transaction sees it null.';
COMMENT ON COLUMN idempotency_keys.stale IS
    'The cache keys that the write made stale. A repeated request invalidates them again: a worker may have died '
    'between its commit and the invalidation.';
COMMENT ON CONSTRAINT idempotency_keys_pkey ON idempotency_keys IS
    'Makes the second of two simultaneous requests wait for the first.';
COMMENT ON INDEX idx_idempotency_keys_created IS
    'Serves claim_idempotency_key, which deletes the oldest expired keys of anybody.';

COMMENT ON TABLE schema_migrations IS 'The migrations that this database has; written by migrate alone.';
