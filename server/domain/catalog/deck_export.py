"""Cards as files: what is written here is read as unchanged by `deck_files`."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from server.domain.catalog.deck_files import FORMAT_BY_MEDIA_TYPE, DeckFormat
from server.domain.catalog.deck_headers import COLUMNS

EXPORT_FORMATS: dict[str, DeckFormat] = {
    media_type: format_ for media_type, format_ in FORMAT_BY_MEDIA_TYPE.items() if format_ != "txt"
}


def write_cards(cards: Iterable[Mapping[str, Any]], format_: DeckFormat) -> bytes:
    """A file of cards, in UTF-8.

    Args:
        cards: with a text or None for each of COLUMNS.
        format_: tsv, csv or json. In tables every cell is in quotes, so that nothing in it means anything else.
    """
    if format_ == "json":
        rows = [{name: card[name] for name in COLUMNS if card[name] is not None} for card in cards]
        return orjson.dumps(rows, option=orjson.OPT_INDENT_2) + b"\n"
    output = io.StringIO(newline="")
    writer = csv.writer(
        output, delimiter="," if format_ == "csv" else "\t", quoting=csv.QUOTE_ALL, lineterminator="\n"
    )
    writer.writerow(COLUMNS)
    writer.writerows([card[name] or "" for name in COLUMNS] for card in cards)
    return output.getvalue().encode()
