"""CONTRIBUTING.md, followed to the letter in a copy of the checkout: each recipe's blocks, then its checks."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.checkout import ROOT, environment

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
RECIPES = {"A query", "A policy", "A route", "A metric", "A script", "A migration"}
_COPIED = (
    ".ci", "Makefile", "bench", "config", "lua", "pyproject.toml", "requirements-dev.txt", "requirements-embedded.txt",
    "server", "sql", "tests",
)  # fmt: skip
_NOT_COPIED = shutil.ignore_patterns("*.pyc.*", "node_modules", "results")  # not what is being written
# A file's name on a line of its own, and its contents; or a block of another kind.
_BLOCK = re.compile(
    r"(?:^`(?P<file>[^`\n]+)`\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_PYTEST = ".venv/bin/python -m pytest -q "


@dataclass
class Checks:
    """The calls of pytest that the recipes end with, as one."""

    paths: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def add(self, command: str) -> None:
        """Take on the files of a call, and which of their tests it is about."""
        paths, _, chosen = command.removeprefix(_PYTEST).partition(" -k ")
        files = " or ".join(Path(path).stem for path in paths.split())
        self.paths += [path for path in paths.split() if path not in self.paths]
        self.words.append(f"(({files}) and ({' '.join(shlex.split(chosen))}))" if chosen else f"({files})")

    def command(self) -> list[str]:
        """One call for all."""
        return [*_PYTEST.split(), *self.paths, "-k", " or ".join(self.words)]


def apply_diff(folder: Path, text: str) -> None:
    """Make the change of a `diff` block, where its kept and removed lines stand one after another, once."""
    head, *lines = text.splitlines()
    file = folder / head.removeprefix("+++ ")
    old = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    new = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
    source = file.read_text()
    assert 1 == source.count(old), f"CONTRIBUTING.md: {file.relative_to(folder)} does not have, once:\n{old}"
    file.write_text(source.replace(old, new))


def follow(folder: Path, recipe: str, checks: Checks) -> None:
    """Do what a recipe says, but for its calls of pytest."""
    for block in _BLOCK.finditer(recipe):
        if block["kind"] == "diff":
            apply_diff(folder, block["text"])
        elif block["kind"] == "console":
            for command in block["text"].splitlines():
                if command.startswith(f"$ {_PYTEST}"):
                    checks.add(command.removeprefix("$ "))
                else:
                    run(folder, ["bash", "-c", command.removeprefix("$ ")])
        else:
            file = folder / block["file"]
            assert not file.exists(), f"CONTRIBUTING.md makes {file.relative_to(folder)}, which is there"
            file.write_text(block["text"])


def run(folder: Path, command: list[str]) -> str:
    """Run a command in the copy; it succeeds, and prints this."""
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=600
    )
    assert 0 == done.returncode, f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.mark.timeout(900)
def test_every_recipe_works_as_it_stands(tmp_path: Path) -> None:
    """The files that it writes, the lines that it adds and the commands that it gives make its own checks pass."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for part in _COPIED:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, copy / part, ignore=_NOT_COPIED)
        else:
            shutil.copy2(ROOT / part, copy / part)
    (copy / ".venv").symlink_to(sys.prefix)
    number = 1 + len(list((copy / "sql" / "migrations").rglob("*.sql")))
    recipes = re.split(r"^### ", PAGE.partition("\n## Recipes\n")[2], flags=re.MULTILINE)[1:]
    assert RECIPES == {recipe.partition("\n")[0] for recipe in recipes}
    checks = Checks()
    for recipe in recipes:
        follow(copy, recipe.replace("NNNN", f"{number:04}"), checks)
    assert len(RECIPES) <= len(checks.words)
    run(copy, checks.command())
    run(copy, [".venv/bin/python", "-m", "ruff", "check", "--no-cache"])
    run(copy, [".venv/bin/python", "-m", "ruff", "format", "--check", "--no-cache"])


CALLS = re.findall(r"^ {4}\.venv/bin/python -m pytest (.+)$", PAGE, re.MULTILINE)


@pytest.fixture(scope="module")
def codes() -> dict[str, int]:
    """The exit code of each call of pytest that the page shows, if it only looked for tests: all in one process."""
    program = (
        "import json, shlex, sys, pytest\n"
        "codes = [pytest.main(['--collect-only', '-qq', *shlex.split(call)]) for call in sys.argv[1:]]\n"
        "print(json.dumps(codes))"
    )
    found = run(ROOT, [sys.executable, "-c", program, *CALLS]).splitlines()[-1]
    return dict(zip(CALLS, json.loads(found), strict=True))


@pytest.mark.parametrize("call", CALLS)
def test_the_calls_of_pytest_find_tests(call: str, codes: dict[str, int]) -> None:
    """Each way to run some of the tests that the page shows chooses at least one."""
    assert 0 == codes[call]
