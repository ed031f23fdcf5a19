-- Ends every token that descends from one login. Parameters: family_id.
UPDATE refresh_tokens SET revoked_at = now() WHERE family_id = %(family_id)s AND revoked_at IS NULL
