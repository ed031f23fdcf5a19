-- no-transaction
-- When a refresh token was exchanged for the second time: two tabs of a browser may do so at once. The release before this
-- one neither reads nor writes it.
ALTER TABLE refresh_tokens ADD COLUMN IF NOT EXISTS used_again_at timestamptz;
-- Serves find_user_by_email, create_user and create_external_user: the few addresses that were stored before addresses
-- were normalised by NFKC, by their normal form. Accounts are not rewritten: their owners go on signing in.
CREATE INDEX CONCURRENTLY IF NOT EXISTS idx_users_email_before_nfkc ON users (lower(normalize(email, NFKC)))
 WHERE email <> lower(normalize(email, NFKC));
