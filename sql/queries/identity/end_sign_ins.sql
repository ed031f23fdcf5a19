-- Ends every refresh token of a user, but for those of one family. Parameters: user_id, kept_family_id (null for none).
UPDATE refresh_tokens
   SET revoked_at = now()
 WHERE user_id = %(user_id)s AND family_id IS DISTINCT FROM %(kept_family_id)s::uuid AND revoked_at IS NULL
