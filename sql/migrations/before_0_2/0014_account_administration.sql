-- no-transaction
-- One-time tokens by which somebody chooses a new password, at most one an account. The release before this one neither
-- reads nor writes them.
CREATE TABLE IF NOT EXISTS password_resets (
    user_id     uuid PRIMARY KEY REFERENCES users ON DELETE CASCADE,
    -- SHA-256 of the token: a stolen table opens no account.
    token_hash  bytea NOT NULL,
    expires_at  timestamptz NOT NULL,
    CONSTRAINT password_resets_hash_unique UNIQUE (token_hash),
    CONSTRAINT password_resets_hash_is_sha256 CHECK (octet_length(token_hash) = 32)
);
-- Serves list_accounts: newest first.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_users_created ON users (created_at DESC, id DESC);
-- Serves list_accounts of the admins, and lock_admins.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_users_admins ON users (created_at DESC, id DESC) WHERE role = 'admin';
