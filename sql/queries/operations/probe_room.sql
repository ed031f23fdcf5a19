-- Whether the server's disk has room: a table of nobody's, gone with its transaction, needs a dozen new pages.
-- Parameters: none.
CREATE TEMPORARY TABLE probe_room ON COMMIT DROP AS
SELECT md5(n::text) AS filler FROM generate_series(1, 1500) AS n
