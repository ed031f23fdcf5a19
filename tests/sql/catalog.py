"""All that a database is besides its rows, as facts that can be compared: read apart from server.cli.schema_page."""

from __future__ import annotations

from tests.stores.postgres.databases import ask

_FACTS = {
    "relation": """
        SELECT relname, relkind::text, relpersistence::text, reloptions, relrowsecurity, relforcerowsecurity,
               relreplident::text, relispartition, reltablespace::text, relacl::text, obj_description(oid, 'pg_class')
          FROM pg_class WHERE relnamespace = 'public'::regnamespace""",
    "column": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attisdropped,
               a.attidentity::text, a.attgenerated::text, a.attstorage::text, a.attcompression::text,
               a.attstattarget, a.attcollation::regcollation::text, a.attoptions, a.attacl::text,
               pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
          FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
          LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0""",
    "constraint": """
        SELECT conname, conrelid::regclass::text, contype::text, condeferrable, condeferred, convalidated,
               conindid::regclass::text, confrelid::regclass::text, confupdtype::text, confdeltype::text,
               confmatchtype::text, connoinherit, conkey, confkey, pg_get_expr(conbin, conrelid, FLAT),
               obj_description(oid, 'pg_constraint')
          FROM pg_constraint WHERE connamespace = 'public'::regnamespace""",
    "index": """
        SELECT i.indexrelid::regclass::text, i.indrelid::regclass::text, m.amname, i.indisunique, i.indisprimary,
               i.indimmediate, i.indisvalid, i.indisready, i.indisreplident, i.indnkeyatts, i.indkey::text,
               i.indoption::text, i.indcollation::text, array(SELECT o::regclass::text FROM unnest(i.indclass) AS o),
               pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid)
          FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid JOIN pg_am AS m ON m.oid = c.relam
         WHERE c.relnamespace = 'public'::regnamespace""",
    "function": """
        SELECT p.oid::regprocedure::text, l.lanname, procost, prorows, provariadic, prosupport::text, prokind::text,
               prosecdef, proleakproof, proisstrict, proretset, provolatile::text, proparallel::text,
               pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), prosrc, proconfig, proacl::text,
               obj_description(p.oid, 'pg_proc')
          FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang WHERE p.pronamespace = 'public'::regnamespace""",
    "trigger": """
        SELECT t.tgname, t.tgrelid::regclass::text, t.tgfoid::regprocedure::text, t.tgtype, t.tgenabled::text,
               t.tgconstrrelid::regclass::text, t.tgdeferrable, t.tginitdeferred, t.tgattr::text,
               encode(t.tgargs, 'hex'), t.tgoldtable, t.tgnewtable, pg_get_triggerdef(t.oid),
               obj_description(t.oid, 'pg_trigger')
          FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
         WHERE c.relnamespace = 'public'::regnamespace AND NOT t.tgisinternal""",
    "sequence": """
        SELECT seqrelid::regclass::text, seqtypid::regtype::text, seqstart, seqincrement, seqmax, seqmin, seqcache,
               seqcycle
          FROM pg_sequence JOIN pg_class ON oid = seqrelid WHERE relnamespace = 'public'::regnamespace""",
    "type": """
        SELECT typname, typtype::text, typcategory::text FROM pg_type WHERE typnamespace = 'public'::regnamespace""",
    "other": """
        SELECT 'extension', extname FROM pg_extension UNION ALL SELECT 'rule', rulename FROM pg_rewrite AS r
          JOIN pg_class AS c ON c.oid = r.ev_class WHERE c.relnamespace = 'public'::regnamespace UNION ALL
        SELECT 'policy', polname FROM pg_policy UNION ALL SELECT 'statistics', stxname FROM pg_statistic_ext""",
}  # fmt: skip
_COMMENTED = {"relation", "column", "constraint", "function", "trigger"}


def describe(url: str, *, as_page: bool = False) -> list[str]:
    """Every fact about tables, columns, constraints, indexes, functions, triggers and the rest, one a line.

    Args:
        url: the database.
        as_page: leave out what a page of SQL does not make again: what COMMENT ON has said, and the brackets of AND.
    """
    return sorted(
        f"{kind}: {row if not as_page or kind not in _COMMENTED else row[:-1]}"
        for kind, query in _FACTS.items()
        for row in ask(url, query.replace("FLAT", str(as_page)))
    )
