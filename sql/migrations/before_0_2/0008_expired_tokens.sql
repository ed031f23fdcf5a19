-- Serves add_refresh_token, which deletes the oldest expired tokens of anybody.
CREATE INDEX idx_refresh_tokens_expires ON refresh_tokens (expires_at);
