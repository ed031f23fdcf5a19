"""What the documentation shows is what happens: its console examples run against the real service."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.development import EmbeddedServer
from server.settings import ROOT
from tests.support.programs import needs
from tests.support.service import running_service

PAGES = ("README.md", "docs/performance-monitoring.md", "docs/studying.md", "docs/courses.md")
PROSE = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
_LONGEST_LINE = 120
_HOUSE_WORDS = re.compile(
    r"\b(?:away|told|hears?|whoever)\b|\b(?:process|worker|service|limiter)(?:es|s)? knows?\b"
)
_CODE = re.compile(r"`[^`\n]+`")
_PATH = re.compile(
    r"`((?:server|lua|sql|config|tests|bench|docs|deploy|\.ci|\.github)/[^`\s:]*)(?:::(\w+))?`"
)
_NEW_FILE = re.compile(r"^`[^`]+`\n\n(?=```)", re.MULTILINE)  # whose contents the page shows
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_SEPARATOR = "--- the next example ---"
# Commands that can be pasted as they are, and below them what they print, if the page shows that.
_BLOCK = re.compile(
    r"^```sh\n(?P<command>.*?)^```$(?:\n\n```text\n(?P<output>.*?)^```$)?", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Example:
    """A command of a page, and what the page says that it prints; `…` stands for anything."""

    page: str
    line: int
    command: str
    output: str


def examples_of(page: str) -> list[Example]:
    """The commands of a page that it shows in blocks of `sh`, each with the block of `text` that follows it."""
    text = (ROOT / page).read_text()
    return [
        Example(
            page, text.count("\n", 0, block.start()) + 2, block["command"].rstrip(), block["output"] or "…"
        )
        for block in _BLOCK.finditer(text)
    ]


def matches(expected: str, printed: str) -> bool:
    """Whether a command printed what the page shows."""
    pattern = ".*?".join(re.escape(part) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


@pytest.fixture
def served_environment(
    shared_postgres: EmbeddedServer, shared_redis: EmbeddedServer, database_template: str
) -> Iterator[dict[str, str]]:
    """The service on the sample course; the environment in which the examples run."""
    with running_service(shared_postgres, shared_redis, database_template, WEB_CONCURRENCY="1") as service:
        yield {
            **service.environment,
            "MASTERY": service.address,
            "TOKEN": service.user_token,
            "ADMIN": service.admin_token,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }


@needs("curl")
@needs("jq")
@pytest.mark.parametrize("page", PAGES)
def test_the_examples_of_a_page_print_what_it_shows(page: str, served_environment: dict[str, str]) -> None:
    """Every command of the page, in order, in one shell."""
    examples = examples_of(page)

    assert examples
    script = "\n".join(f"{example.command}\nprintf '%s' '{_SEPARATOR}'" for example in examples)
    done = subprocess.run(
        ["bash", "-c", script],
        env=served_environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    for example, printed in zip(examples, done.stdout.replace("\r", "").split(_SEPARATOR), strict=False):
        assert matches(example.output, printed), (
            f"{page}:{example.line}: {example.command}\nprinted:\n{printed}"
        )


def prose_of(page: Path) -> list[tuple[int, str]]:
    """The lines of a page that are neither code nor tables nor pictures, numbered, without the code within them."""
    lines, is_code = [], False
    for number, line in enumerate(page.read_text().splitlines(), start=1):
        if line.startswith("```"):
            is_code = not is_code
        elif not is_code and not line.startswith(("|", "    ", "!", "#")):
            lines.append((number, _CODE.sub("", line)))
    return lines


def anchors_of(page: Path) -> set[str]:
    """The anchors that the headings of a page have in a browser."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_prose_is_folded(page: Path) -> None:
    """A line of prose has at most 120 characters: it is read beside code, and compared line by line."""
    assert [] == [(number, line) for number, line in prose_of(page) if len(line) > _LONGEST_LINE]


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Each link within the repository names a file that there is, and a heading that it has."""
    dead = []
    for target in _LINK.findall(_CODE.sub("", page.read_text())):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors_of(file)):
            dead.append(target)
    assert [] == dead


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_paths_exist(page: Path) -> None:
    """Each file or folder of the checkout that a page names is there, and so is each `file.py::test_name`."""
    missing = []
    for path, test in _PATH.findall(_NEW_FILE.sub("", page.read_text())):
        found = sorted(ROOT.glob(path.rstrip("/")))
        if not found or (test and f"def {test}(" not in found[0].read_text()):
            missing.append(f"{path}::{test}" if test else path)
    assert [] == missing


def test_the_code_map_has_every_folder() -> None:
    """docs/architecture.md has a line for each folder of the program."""
    mapped = set(re.findall(r"^\| `(server[^`]*)/` \|", ARCHITECTURE, re.MULTILINE))
    folders = {path.parent for path in (ROOT / "server").rglob("*.py")} | {ROOT / "server" / "static"}
    assert {str(folder.relative_to(ROOT)) for folder in folders} == mapped


def test_the_layers_are_those_that_are_checked() -> None:
    """The picture of docs/architecture.md and the contract in pyproject.toml have the same layers, in order."""
    picture = ARCHITECTURE.partition("\n## Layers\n")[2].split("```")[1]
    shown = [re.split(r" {2,}", line)[0].split(", ") for line in picture.strip().splitlines()]
    (contract,) = (
        one
        for one in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
        if one["type"] == "layers" and "server.app" in one["layers"]
    )
    checked = [
        [part.strip().removeprefix("server.") for part in re.split(r"[|:]", layer)]
        for layer in contract["layers"]
    ]
    assert checked == shown


def test_the_glossary_is_in_alphabetical_order() -> None:
    """A word is found by looking where it should be, and stands there once."""
    words = re.findall(r"^\| ([a-z][a-z ,-]*) \|", ARCHITECTURE.partition("\n## Glossary\n")[2], re.MULTILINE)
    words.remove("word")
    assert len(words) > 30
    assert sorted(set(words)) == words


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_plain_words(page: Path) -> None:
    """A server is down or unavailable, never away; a process reports and detects, it does not tell, hear or know."""
    assert [] == [(number, line) for number, line in prose_of(page) if _HOUSE_WORDS.search(line)]
