-- Taking a key, and returning at once if it is new: before, each claim set up the plans of what happens to a key that is
-- known, and of deleting expired ones, which are rarely there.

CREATE OR REPLACE FUNCTION claim_idempotency_key(
    given_user uuid, given_key text, given_fingerprint bytea,
    OUT fingerprint bytea, OUT status smallint, OUT location text, OUT body bytea, OUT stale text[]
) LANGUAGE plpgsql SET enable_seqscan = off AS $$
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
$$;
