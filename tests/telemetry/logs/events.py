"""The events that the code can log: their names, levels and fields, read from its syntax trees."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

from server.domain.editing.resources import CLASSES, DECKS, FLASHCARDS
from server.settings import ROOT

LEVELS = {name: name for name in ("debug", "info", "warning", "error", "critical")} | {"exception": "error"}
# Functions of ours that log the event they are given, with their level and the fields that they add.
_HELPERS = {
    "_audit": ({"info"}, {"source", "account_id"}),
    "_log_once": ({"error"}, {"reason", "detail"}),
    "report": ({"info", "warning"}, set()),
}
_FORMED = {
    "audit.*_*": [
        f"audit.{resource.name}_{what}"
        for resource in (CLASSES, DECKS, FLASHCARDS)
        for what in ("created", "updated", "deleted")
    ]
}
_EVENT = re.compile(r"[a-z_]+(\.[a-z_]+)+")
_SHOWN_AS = {"error": "error.message", "exc_info": "error.stack"}
OPEN = "**"  # further fields, which the tree does not show


@dataclass(slots=True)
class Event:
    """What the code gives an event: levels, and fields of any of its calls."""

    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


@cache
def logged_events() -> dict[str, Event]:
    """Every event of the code, by its name."""
    found: dict[str, Event] = defaultdict(Event)
    for path in sorted((ROOT / "server").rglob("*.py")):
        for name, levels, fields in _calls(ast.parse(path.read_text())):
            found[name].levels |= levels
            found[name].fields |= fields
    return dict(found)


def _calls(tree: ast.AST) -> Iterator[tuple[str, set[str], set[str]]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                yield from _of_a_task(argument.arg, default)
        elif isinstance(node, ast.Call):
            for keyword in node.keywords:
                yield from _of_a_task(keyword.arg, keyword.value)
            yield from _of_a_call(node)


def _of_a_task(argument: str | None, value: ast.expr | None) -> Iterator[tuple[str, set[str], set[str]]]:
    if argument == "failure" and isinstance(value, ast.Constant):
        yield str(value.value), {"warning"}, {"task", "error.message"}


def _of_a_call(node: ast.Call) -> Iterator[tuple[str, set[str], set[str]]]:
    function, arguments = node.func, node.args
    if isinstance(function, ast.Name) and function.id == "partial" and arguments:
        function, arguments = arguments[0], arguments[1:]
    levels, added = _levels(function)
    fields = added.union(*map(_fields, node.keywords))
    if levels and arguments:
        for name in filter(_EVENT.fullmatch, _names(arguments[0])):
            yield name, levels, {_SHOWN_AS.get(field, field) for field in fields}


def _levels(function: ast.expr) -> tuple[set[str], set[str]]:
    """The levels at which a function logs, and the fields that it adds; no levels if it does not log."""
    match function:
        case ast.Attribute(attr=method, value=logger) if method in LEVELS and _is_log(logger):
            return {LEVELS[method]}, {"exc_info"} if method == "exception" else set()
        case ast.IfExp(body=ast.Attribute(attr=one), orelse=ast.Attribute(attr=other)):
            return {LEVELS.get(one, one), LEVELS.get(other, other)}, set()
        case ast.Name(id=helper):
            return _HELPERS.get(helper, (set(), set()))
        case _:
            return set(), set()


def _is_log(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id == "log") or (
        isinstance(node, ast.Attribute) and node.attr in {"_log", "log"}
    )


def _fields(keyword: ast.keyword) -> set[str]:
    if keyword.arg is not None:
        return {keyword.arg}
    if isinstance(keyword.value, ast.Dict):
        return {str(key.value) for key in keyword.value.keys if isinstance(key, ast.Constant)}
    return {OPEN}


def _names(node: ast.expr) -> list[str]:
    match node:
        case ast.Constant(value=str(name)):
            return [name]
        case ast.JoinedStr(values=parts):
            pattern = "".join(str(part.value) if isinstance(part, ast.Constant) else "*" for part in parts)
            return _FORMED.get(pattern, [])
        case _:
            return []  # a helper's parameter: its callers are found
