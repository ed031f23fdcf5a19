"""The scripts' headers are true: each operation is documented and has its Python function, and back."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from server.ratelimit import scripts
from server.stores.redis.scripts import SCRIPTS_FOLDER, load_script

SERVER_FOLDER = SCRIPTS_FOLDER.parent / "server"
FILES = sorted(SCRIPTS_FOLDER.rglob("*.lua"))
HEADER = re.compile(r"\A--\[\[\n(?P<text>.*?)\n\]\]\n", re.DOTALL)


def header_of(path: Path) -> str:
    """The comment that a script opens with."""
    match = HEADER.match(path.read_text())
    assert match is not None, f"{path.name} opens with no header"
    return match["text"]


PARTS = sorted((SCRIPTS_FOLDER / "includes").glob("*.lua"))
OPERATIONS = sorted(SCRIPTS_FOLDER.glob("*.lua"))


def name_of(path: Path) -> str:
    """A test's id."""
    return path.stem


@pytest.mark.parametrize("path", OPERATIONS, ids=name_of)
def test_an_operation_says_what_it_takes_and_returns(path: Path) -> None:
    """It is named verb_object, and its header has a sentence, KEYS, ARGV and Returns, times with their units."""
    header = header_of(path)
    assert re.fullmatch(r"[a-z]+_[a-z]+", path.stem)
    sections = re.findall(r"^  (KEYS|ARGV|Returns):$", header, re.MULTILINE)
    assert ["KEYS", "ARGV", "Returns"] == sections
    assert header.splitlines()[0].endswith(".")
    for line in header.splitlines():
        if re.search(r"\b(window|span|age|keep|wait|release)  ", line):
            assert re.search(r"microseconds|milliseconds|as in decide_charges|packed", line + header), line


@pytest.mark.parametrize("path", PARTS, ids=name_of)
def test_a_part_says_where_it_belongs(path: Path) -> None:
    """The operations that it names are those that include it."""
    named = re.search(r"^  Part of: (.+)$", header_of(path), re.MULTILINE)
    assert named is not None
    first_line = path.read_bytes()[:60]
    users = [one.stem for one in OPERATIONS if first_line in load_script(one.stem).source]
    assert ", ".join(users) == named[1]


def test_each_operation_has_its_function_and_back() -> None:
    """For each script a function of its name, with keyword arguments only but for who runs it, documented."""
    functions = {
        name: function
        for name, function in inspect.getmembers(scripts, inspect.iscoroutinefunction)
        if function.__module__ == scripts.__name__
    }
    callers = {
        name: path
        for path in SERVER_FOLDER.rglob("*.py")
        for name in re.findall(r"""load_script\("(\w+)"\)""", path.read_text())
    }
    assert [path.stem for path in OPERATIONS] == sorted(callers)
    assert {name for name, path in callers.items() if path == Path(scripts.__file__)} == set(functions)
    for name, function in functions.items():
        parameters = list(inspect.signature(function).parameters.values())
        assert parameters[0].name == "runner"
        assert all(one.kind is inspect.Parameter.KEYWORD_ONLY for one in parameters[1:])
        assert function.__doc__
        assert f'load_script("{name}")' in inspect.getsource(function)


@pytest.mark.parametrize("path", OPERATIONS, ids=name_of)
def test_no_number_passes_through_tostring(path: Path) -> None:
    """Lua keeps fourteen digits of a number that becomes text; a time has sixteen."""
    source = re.sub(r"--\[\[.*?\]\]|--[^\n]*", "", load_script(path.stem).source.decode(), flags=re.DOTALL)
    assert "tostring" not in source


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_no_global_is_made(path: Path) -> None:
    """Every function and every name is local: Redis forbids globals, at run time only."""
    body = path.read_text().partition("]]\n")[2]
    assert not re.search(r"^\s*function ", body, re.MULTILINE)
