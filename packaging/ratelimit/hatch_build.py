"""Puts the limiter's files into its distribution: server/ratelimit with what it imports, and lua/ of the checkout.

They keep their places relative to each other, so they work under the name `mastery_ratelimit` as they do under
`server`. A source distribution holds them where a wheel does; a wheel that is made of one finds them there.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PARTS = {
    "server/ratelimit/*.py": "ratelimit",
    "server/stores/redis/*.py": "stores/redis",
    "server/stores/__init__.py": "stores",
    "server/bounded_dict.py": "",
}
RUN_SCRIPT = re.compile(r'load_script\("(\w+)"\)')


class LimiterFiles(BuildHookInterface):  # type: ignore[type-arg]  # the configuration is its own
    """Adds the files of the checkout, if there is one around this folder."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Choose the files.

        Args:
            version: of the target.
            build_data: what hatchling adds to the distribution.

        Raises:
            RuntimeError: an editable install, whose files would have to be in two places.
        """
        if version == "editable":
            raise RuntimeError(
                "an editable install is not possible: the files belong to the service's own package"
            )
        root = Path(self.root)
        checkout = root.parents[1]
        if (root / "mastery_ratelimit" / "ratelimit").is_dir():
            return  # made of a source distribution
        files = {
            path: str(Path("mastery_ratelimit", target, path.name))
            for source, target in PARTS.items()
            for path in sorted(checkout.glob(source))
        }
        # What the limiter runs; the other scripts are the service's.
        names = {name for path in files for name in RUN_SCRIPT.findall(path.read_text())}
        scripts = [checkout / "lua" / f"{name}.lua" for name in sorted(names)]
        for path in [*scripts, *sorted((checkout / "lua" / "includes").glob("*.lua"))]:
            files[path] = f"mastery_ratelimit/{path.relative_to(checkout)}"
        files[checkout / "LICENSE"] = "mastery_ratelimit/LICENSE"
        build_data["force_include"].update({str(path): target for path, target in files.items()})
