"""The arguments of the command that reads course files. It imports nothing that takes long, for `--help`."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_import_arguments(importing: argparse.ArgumentParser) -> None:
    """Those of `import`."""
    importing.add_argument(
        "path", type=Path, metavar="PATH", help="a .tsv, .csv, .txt or .json file, or a folder"
    )
    importing.add_argument("--dry-run", action="store_true", help="say what would change, and store nothing")
    importing.add_argument(
        "--class", dest="class_name", metavar="NAME", help="the class (name of the folder)"
    )
    importing.add_argument("--draft", action="store_true", help="do not publish what is new")
    importing.add_argument(
        "--charset", metavar="NAME", default="utf-8", help="of files without a byte order mark (utf-8)"
    )
    importing.add_argument(
        "--dialect", choices=("tab", "comma", "semicolon", "pipe"), help="what divides the columns (found)"
    )
    importing.add_argument(
        "--escapes", choices=("none",), help="none: \\n written out is text, also in a TSV without quotes"
    )
