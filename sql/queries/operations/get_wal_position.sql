-- How far this server's log of changes has got: on a replica what it has replayed, on a primary what it has written.
-- In bytes since the beginning of the cluster, so that the two can be compared. Parameters: none.
SELECT pg_is_in_recovery() AS is_replica,
       pg_wal_lsn_diff(
         CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, '0/0'
       )::bigint AS position
