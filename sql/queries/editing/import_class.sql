-- Finds a class by its name, or makes it; what is not null replaces what was there.
-- `is_changed` says whether that made a difference. Parameters: name, description, icon, color, sort_order,
-- is_published (of a new one).
WITH known AS (
    SELECT id FROM classes WHERE name = %(name)s ORDER BY created_at, id LIMIT 1
), updated AS (
    UPDATE classes AS c
       SET description = coalesce(%(description)s, c.description), icon = coalesce(%(icon)s, c.icon),
           color = coalesce(%(color)s, c.color), sort_order = coalesce(%(sort_order)s, c.sort_order), updated_at = now()
      FROM known
     WHERE c.id = known.id
       AND (c.description, c.icon, c.color, c.sort_order) IS DISTINCT FROM
           (coalesce(%(description)s, c.description), coalesce(%(icon)s, c.icon),
            coalesce(%(color)s, c.color), coalesce(%(sort_order)s, c.sort_order))
    RETURNING c.id
), created AS (
    INSERT INTO classes (name, description, icon, color, sort_order, is_published)
    SELECT %(name)s, %(description)s, %(icon)s, %(color)s, coalesce(%(sort_order)s, 0), %(is_published)s
     WHERE NOT EXISTS (SELECT FROM known)
    RETURNING id
)
SELECT id, EXISTS (SELECT FROM updated) AS is_changed FROM known UNION ALL SELECT id, true FROM created
