"""The house keeps its own rules: floors, sizes, locks, and a README whose commands exist."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from server.__main__ import build_parser
from tests.support.checkout import ROOT

LOCKS = ("requirements.txt", "requirements-otel.txt", "requirements-embedded.txt", "requirements-dev.txt")
_PACKAGE = re.compile(r"^([a-z0-9][a-z0-9._-]*)==(\S+)", re.MULTILINE)
_LONGEST_LINES = 500
# Made, not written: the whole schema is meant to be one page.
_LONGER = {"sql/schema.sql"}


def tracked(*patterns: str) -> list[Path]:
    """The files of the project below some patterns."""
    listed = subprocess.run(
        ["git", "ls-files", "--", *patterns], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("no git checkout")
    return [path for path in (ROOT / line for line in listed.stdout.splitlines()) if path.is_file()]


def read_lock(name: str) -> dict[str, str]:
    """The pinned version of each package of a lock."""
    return dict(_PACKAGE.findall((ROOT / name).read_text()))


def test_a_module_imports_only_from_floors_below() -> None:
    """The layers of pyproject.toml hold."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command; lint_imports_command()",
        "--no-cache",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr


def test_every_package_is_on_a_floor() -> None:
    """A new package of server/ has to be given its place."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    floors = project["tool"]["importlinter"]["contracts"][0]["layers"]
    parts = {
        path.stem
        for path in (ROOT / "server").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert {f"server.{part}" for part in parts - {"__init__"}} == {
        name for floor in floors for name in floor.split(" | ")
    }


def test_modules_are_short() -> None:
    """One concept a module: 500 lines at most, wherever it is."""
    patterns = (
        "server/**/*.py",
        "bench/**/*.py",
        "config/*.py",
        "tests/**/*.py",
        "lua/**/*.lua",
        "sql/**/*.sql",
    )
    lengths = {
        str(file.relative_to(ROOT)): len(file.read_text().splitlines())
        for pattern in patterns
        for file in tracked(f":(glob){pattern}")
    }
    assert len(lengths) > 400
    assert _LONGER == {path for path, lines in lengths.items() if lines > _LONGEST_LINES}


def test_files_know_no_machine() -> None:
    """Nothing in the project depends on the place where it was written."""
    private = re.compile(r"/(?:home|Users)/[a-z]|/root/|/tmp/[a-z]|/[w]ork/[a-z]")
    found = {}
    for file in tracked("."):
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue
        if file != Path(__file__) and (hits := private.findall(text)):
            found[str(file.relative_to(ROOT))] = hits
    assert {} == found


@pytest.mark.parametrize("name", LOCKS)
def test_locks_pin_every_package_by_hash_and_no_index(name: str) -> None:
    """What is installed is what was tested, wherever it is downloaded from."""
    text = (ROOT / name).read_text()
    requirements = [block for block in re.split(r"\n(?=\S)", text) if not block.startswith("#")]
    assert len(requirements) > 20
    for requirement in requirements:
        assert re.match(r"[a-z0-9._-]+(?:\[[a-z,]+\])?==\S+", requirement), requirement
        assert "--hash=sha256:" in requirement, requirement
    for word in ("index-url", "find-links", "trusted-host", "http://", "https://", "file:"):
        assert word not in text


def test_locks_agree_with_each_other() -> None:
    """The tests run the versions that production runs."""
    production, traced, embedded, development = (read_lock(name) for name in LOCKS)
    assert production.items() <= traced.items() <= embedded.items() <= development.items()


def test_locks_hold_what_the_project_asks_for() -> None:
    """A dependency that is added to pyproject.toml is added to the locks, and production has no more than it asks."""

    def names(requirements: list[object]) -> set[str]:
        texts = [text for text in requirements if isinstance(text, str)]
        return {re.split(r"[\[~<>=; ]", text)[0].lower().replace("_", "-") for text in texts}

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    production, traced, embedded, development = (set(read_lock(name)) for name in LOCKS)
    assert names(project["project"]["dependencies"]) <= production
    extra = names(project["project"]["optional-dependencies"]["otel"])
    assert extra <= traced
    assert names(groups["embedded"]) <= embedded
    assert names(groups["dev"]) <= development
    assert not (names(groups["embedded"] + groups["dev"]) | extra) & production


def test_readme_names_commands_that_exist() -> None:
    """Every make target and every command of `python -m server` in the documents is one."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    usage = build_parser().format_help()
    for document in tracked("*.md", "docs/*.md"):
        text = document.read_text()
        for target in re.findall(r"(?:`|^ {4}|\$ )(?:[A-Z_]+=\S+ )*make ([a-z-]+)", text, re.MULTILINE):
            assert target in targets, f"{document.name}: make {target}"
        for command in re.findall(r"python -m server ([a-z][a-z-]*)", text):
            assert re.search(rf"^ {{4}}{command}\b", usage, re.MULTILINE), f"{document.name}: {command}"


def test_readme_lists_every_command() -> None:
    """The table of commands has all of them, and no other."""
    table = (ROOT / "README.md").read_text().partition("\n## Commands\n")[2].partition("\n## ")[0]
    first_column = " ".join(re.findall(r"^\| (`.+?`) \|", table, re.MULTILINE)[1:])
    listed = {code.split()[0] for code in re.findall(r"`([^`]+)`", first_column)}
    assert set(re.findall(r"^ {4}([a-z-]+)\b", build_parser().format_help(), re.MULTILINE)) == listed


def test_make_alone_explains_every_target() -> None:
    """What one can do is one word away: each target with what it does, in lines that a terminal does not fold."""
    targets = re.findall(r"^\.PHONY: (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    printed = {
        arguments: subprocess.run(
            ["make", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        for arguments in ((), ("help",))
    }
    assert printed[()] == printed["help",]
    assert {"run", "test", "check", "bench", "lock", "clean"} <= set(targets)
    for target in targets:
        assert re.search(rf"^  make {target} +\S", printed[()], re.MULTILINE), target
    assert [] == [line for line in printed[()].splitlines() if len(line) > 110]
