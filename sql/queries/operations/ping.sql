-- Whether the server answers, and whether it takes writes: a standby, default_transaction_read_only and a revoked INSERT
-- refuse them. Parameters: none.
SELECT current_setting('transaction_read_only') = 'on'
       OR NOT coalesce(has_table_privilege(to_regclass('user_stats'), 'INSERT'), true) AS is_read_only
