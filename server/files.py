"""Where the program's own files are: beside the package in a checkout, inside it when it was installed from a wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PACKAGE: Final = Path(__file__).resolve().parent

IS_CHECKOUT: Final = (_PACKAGE.parent / "sql" / "migrations").is_dir()

# The folder of config/, lua/ and sql/.
ROOT: Final = _PACKAGE.parent if IS_CHECKOUT else _PACKAGE

# The folder of .env and .state/, which belong to whoever runs the program.
HOME: Final = _PACKAGE.parent if IS_CHECKOUT else Path.cwd()
