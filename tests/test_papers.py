"""The papers beside the code say the same as the code: licence, changelog, hooks, continuous integration."""

from __future__ import annotations

import re
import shlex
import tomllib
from datetime import date

import pytest
import yaml

from server import __version__
from tests.support.checkout import ROOT
from tests.test_house import tracked

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_CHANGES = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
_VENDORED = ("server/static/swagger-ui/", "server/static/uplot/")
_TEXT = ("py", "md", "toml", "lua", "sql", "yml", "yaml", "json", "js", "css", "html", "txt")


def test_the_licence_is_the_one_that_the_project_names() -> None:
    """Its text is MIT's, and the licences of what is vendored go along."""
    assert "MIT" == PROJECT["license"]
    text = (ROOT / "LICENSE").read_text()
    assert text.startswith("MIT License\n\nCopyright (c) 2026 The Mastery authors\n")
    assert {"name": "The Mastery authors"} in PROJECT["authors"]
    theirs = tracked("server/static/**/LICENSE", "server/static/**/NOTICE")
    assert theirs
    assert {"LICENSE", *(str(file.relative_to(ROOT)) for file in theirs)} == set(PROJECT["license-files"])
    assert (ROOT / PROJECT["readme"]).is_file()


def test_the_changelog_has_this_version_and_keeps_its_format() -> None:
    """Unreleased first, then the versions from the newest on, each with a day and the usual kinds of changes."""
    text = (ROOT / "CHANGELOG.md").read_text()
    first, *released = re.findall(r"^## \[(.+)$", text, re.MULTILINE)
    assert "Unreleased]" == first
    heads = [re.fullmatch(r"(\d+)\.(\d+)\.(\d+)\] - (\d{4}-\d{2}-\d{2})", head) for head in released]
    assert heads
    versions = [tuple(int(part) for part in head.groups()[:3]) for head in heads if head is not None]
    days = [date.fromisoformat(head[4]) for head in heads if head is not None]
    assert len(heads) == len(versions)
    assert sorted(set(versions), reverse=True) == versions
    assert sorted(days, reverse=True) == days
    assert PROJECT["version"] == __version__ == ".".join(map(str, versions[0]))
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= set(_CHANGES)


def test_the_hooks_before_a_commit_are_the_checks_of_make_check() -> None:
    """The same commands in the same order, from .venv, without an installation of their own."""
    recipe = re.search(r"^check:.*\n(?:#.*\n)*((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert recipe is not None
    lines = [line.strip() for line in recipe[1].splitlines()]
    checks = [line.replace("$(python)", ".venv/bin/python") for line in lines if line.startswith("$(python)")]
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert "local" == repository["repo"]
    assert checks
    assert [shlex.split(check) for check in checks] == [
        shlex.split(hook["entry"]) for hook in repository["hooks"]
    ]
    for hook in repository["hooks"]:
        assert ("system", False) == (hook["language"], hook["pass_filenames"])


def test_the_workflow_runs_what_continuous_integration_runs() -> None:
    """It ends in .ci/run, and installs the programs that .ci/run would install where it may."""
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    steps = [step["run"] for step in job["steps"] if "run" in step]
    assert ".ci/run" == steps[-1]
    wanted = set(re.findall(r"missing\+=\(([a-z-]+)\)", (ROOT / ".ci" / "run").read_text()))
    # The runner has a browser; the distribution's is only a pointer to another installer.
    assert wanted - {"chromium"} == set(steps[0].rpartition("--no-install-recommends")[2].split())
    assert {"contents": "read"} == workflow["permissions"]


@pytest.mark.parametrize("ending", _TEXT)
def test_text_files_are_as_editors_are_asked_to_write_them(ending: str) -> None:
    """UTF-8 without a mark, line feeds, no blank at a line's end, and a last line that ends."""
    faults = []
    for file in tracked(f"*.{ending}"):
        name = str(file.relative_to(ROOT))
        if name.startswith(_VENDORED) or not (content := file.read_bytes()):
            continue
        content.decode("utf-8")
        if (
            b"\r" in content
            or re.search(rb"[ \t]$", content, re.MULTILINE)
            or not content.endswith(b"\n")
            or content.startswith(b"\xef\xbb\xbf")
        ):
            faults.append(name)
    assert [] == faults


def test_every_decision_is_dated_and_in_the_index() -> None:
    """A page a decision: its number, its day, the same four headings, and a line of the index with the same day."""
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    pages = sorted(page for page in folder.glob("*.md") if page.name != "README.md")
    rows = re.findall(r"^\| \[(.+)\]\((.+)\) \| (.+) \|$", index, re.MULTILINE)
    assert [page.name for page in pages] == [name for _, name, _ in rows]
    for number, (page, (title, name, day)) in enumerate(zip(pages, rows, strict=True), start=1):
        text = page.read_text()
        assert name.startswith(f"{number:04}-")
        assert title.startswith(f"{number:04} ")
        assert text.startswith(f"# {title}\n\n{day}\n\n"), name
        assert all(date.fromisoformat(one) for one in day.split(", revised "))
        headings = ["Context", "Decision", "Consequences", "What would change our mind"]
        assert headings == re.findall(r"^## (.+)$", text, re.MULTILINE), name
        assert len(text.splitlines()) <= 60, f"{name}: a decision is one page"
