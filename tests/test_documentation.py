"""What the documentation shows is what happens: its console examples run against the real service."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from server.development.servers import EmbeddedServer
from server.settings import ROOT
from tests.support.service import running_service

PAGES = ("README.md", "docs/performance-monitoring.md", "docs/studying.md")
_SEPARATOR = "--- the next example ---"
_BLOCK = re.compile(r"^```console\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A command of a page, and what the page says that it prints; `…` stands for anything."""

    page: str
    line: int
    command: str
    output: str


def examples_of(page: str) -> list[Example]:
    """The commands in a page's console blocks: a line that begins with `$ `, continued by a backslash."""
    text = (ROOT / page).read_text()
    examples = []
    for block in _BLOCK.finditer(text):
        lines = block["text"].splitlines()
        first = text.count("\n", 0, block.start("text")) + 1
        index = 0
        while index < len(lines):
            at, command = index, lines[index].removeprefix("$ ")
            while command.endswith("\\"):
                index += 1
                command += "\n" + lines[index]
            index += 1
            output = []
            while index < len(lines) and not lines[index].startswith("$ "):
                output.append(lines[index])
                index += 1
            examples.append(Example(page, first + at, command, "\n".join(output)))
    return examples


def matches(expected: str, printed: str) -> bool:
    """Whether a command printed what the page shows."""
    pattern = ".*?".join(re.escape(part) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


@pytest.fixture
def served_environment(
    shared_postgres: EmbeddedServer, shared_redis: EmbeddedServer, database_template: str
) -> Iterator[dict[str, str]]:
    """Two workers on the sample course; the environment in which the examples run."""
    with running_service(shared_postgres, shared_redis, database_template) as service:
        yield {
            **service.environment,
            "MASTERY": service.address,
            "TOKEN": service.user_token,
            "ADMIN": service.admin_token,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        }


@pytest.mark.skipif(
    shutil.which("curl") is None, reason="the examples are curl commands, and there is no curl"
)
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
