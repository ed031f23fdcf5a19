"""`python -m server settings`: what is in force and where it comes from."""

from __future__ import annotations

from pathlib import Path

from server.cli.environment import shown_settings

ENVIRONMENT = {
    "DATABASE_URL": "postgresql://ada:hunter2@db.example/mastery?sslmode=require&password=hunter2",
    "SECRET_KEY": "hunter2-" * 4,
    "WEB_CONCURRENCY": "4",
}


def rows_of(text: str) -> dict[str, list[str]]:
    """The value and the source of each variable."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines()}


def test_deploy_04_every_value_has_its_source(tmp_path: Path) -> None:
    """The environment, the .env file and the defaults are told apart; nothing secret is printed."""
    (tmp_path / ".env").write_text("REDIS_URL=rediss://:hunter2@cache.example:6380/0\nWEB_CONCURRENCY=9\n")
    text, problems = shown_settings(ENVIRONMENT, tmp_path)
    rows = rows_of(text)
    assert [] == problems
    assert ["4", "environment"] == rows["WEB_CONCURRENCY"]
    assert ["rediss://:********@cache.example:6380/0", ".env"] == rows["REDIS_URL"]
    assert (
        "postgresql://ada:********@db.example/mastery?sslmode=********&password=********"
        == rows["DATABASE_URL"][0]
    )
    assert ["********", "environment"] == rows["SECRET_KEY"]
    assert ["8000", "default"] == rows["PORT"]
    assert ["-", "default"] == rows["METRICS_TOKEN"]
    assert "hunter2" not in text


def test_deploy_04_problems_come_with_what_is_there(tmp_path: Path) -> None:
    """Settings that can't be used are printed all the same, and what is wrong with them is listed."""
    text, problems = shown_settings({**ENVIRONMENT, "PORT": "none"}, tmp_path)
    assert ["none", "environment"] == rows_of(text)["PORT"]
    assert ["REDIS_URL", "PORT"] == [problem.split(":")[0].split()[0] for problem in problems]
