"""Mastery: the backend of a flashcard study service."""

__version__ = "0.1.0"  # the same as in pyproject.toml
