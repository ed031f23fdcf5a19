"""What is wrong with a deck file: each problem with its row, its column and what is accepted there."""

from __future__ import annotations

from dataclasses import dataclass

from server.errors import BodyTooLarge, InvalidInput

MAX_ROWS = 100_000
MOST_PROBLEMS = 20


def excerpt(text: str) -> str:
    """The beginning of a text, in quotes."""
    return repr(text if len(text) <= 60 else text[:60] + "…")


@dataclass(frozen=True, slots=True)
class DeckProblem:
    """What is wrong in a row, in which column if in one, and what is accepted there."""

    row: int
    column: str | None
    problem: str
    accepted: str

    def __str__(self) -> str:
        place = f"row {self.row}" if self.column is None else f"row {self.row}, {self.column}"
        return f"{place}: {self.problem}; accepted: {self.accepted}"


class TooManyRows(BodyTooLarge):
    """An import takes at most 100,000 rows: send the file in parts."""

    code = "too_many_rows"


class DeckFileError(InvalidInput):
    """The file is not a deck."""

    code = "invalid_deck_file"

    def __init__(self, problems: list[DeckProblem], count: int) -> None:
        """Args: problems: the first ones, at most MOST_PROBLEMS; count: how many there are in all."""
        self.problems = problems
        self.count = count
        errors = {
            f"rows.{problem.row}" + (f".{problem.column}" if problem.column else ""): (
                f"{problem.problem}; accepted: {problem.accepted}"
            )
            for problem in problems
        }
        super().__init__(
            f"The file has {count} problem{'s' if count > 1 else ''}.",
            errors=errors,
            unlisted=count - len(problems),
        )


class Problems:
    """Collects problems: keeps the first ones, counts all."""

    def __init__(self) -> None:
        self.kept: list[DeckProblem] = []
        self.count = 0

    def add(self, row: int, column: str | None, problem: str, accepted: str) -> None:
        """Note a problem."""
        self.count += 1
        if len(self.kept) < MOST_PROBLEMS:
            self.kept.append(DeckProblem(row, column, problem, accepted))

    def raise_if_any(self) -> None:
        """Raises DeckFileError if there is one."""
        if self.count:
            raise DeckFileError(self.kept, self.count)
