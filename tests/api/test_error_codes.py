"""The codes of errors: those that the service can answer with, those of the document, and those of docs/errors.md."""

from __future__ import annotations

import http
import importlib
import pkgutil
from collections import Counter

import server
from server.api.answers.error_codes import ERROR_CODES
from server.connections import table
from server.errors import ClientDisconnected, MasteryError
from tests.api.conformance import document
from tests.support.checkout import ROOT

_NOT_OURS = {"server.__main__", "server.development"}


def _kinds(kind: type[MasteryError]) -> set[type[MasteryError]]:
    return {kind}.union(*(_kinds(inner) for inner in kind.__subclasses__()))


def _possible() -> set[tuple[str, int]]:
    """Each code with its status: of every class of errors, of what the parser refuses, and of aiohttp's router."""
    for module in pkgutil.walk_packages(server.__path__, "server."):
        if not module.name.startswith(tuple(_NOT_OURS)):
            importlib.import_module(module.name)
    raised = {
        (kind.code, kind.status)
        for kind in _kinds(MasteryError)
        if kind.__module__.startswith("server.") and kind is not ClientDisconnected
    }
    refused = {
        (value.title.lower().replace(" ", "_"), value.status)
        for value in vars(table).values()
        if isinstance(value, table.Refusal)
    }
    unmatched = {(http.HTTPStatus(status).phrase.lower().replace(" ", "_"), status) for status in (404, 405)}
    return raised | refused | unmatched | {("rate_limited", 429)}


def test_every_code_is_listed_with_its_status() -> None:
    """No error answers with another one, and none is listed that nothing answers with."""
    assert {(one.code, one.status) for one in ERROR_CODES} == _possible()
    assert {} == {
        code: times for code, times in Counter(one.code for one in ERROR_CODES).items() if times > 1
    }
    assert sorted(one.status for one in ERROR_CODES) == [one.status for one in ERROR_CODES]


def test_the_document_lists_the_codes() -> None:
    """As an enum with a name, which every problem refers to."""
    schemas = document()["components"]["schemas"]
    assert [one.code for one in ERROR_CODES] == schemas["ErrorCode"]["enum"]
    assert "#/components/schemas/ErrorCode" == schemas["Problem"]["properties"]["code"]["$ref"]


def test_the_page_says_what_to_do_about_each() -> None:
    """docs/errors.md has a table of them, line by line as they stand in the code."""
    rows = [f"| `{one.code}` | {one.status} | {one.cause} | {one.remedy} |" for one in ERROR_CODES]
    table = "\n".join(("| code | status | when | what to do |", "|---|---|---|---|", *rows)) + "\n"
    assert table in (ROOT / "docs" / "errors.md").read_text()
