-- How long each statement may take on the server, until the transaction ends. Parameters: timeout_ms.
SELECT set_config('statement_timeout', %(timeout_ms)s::text, true) AS statement_timeout
