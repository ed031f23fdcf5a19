"""Prints the Lua of the libraries beside this file, by name; run by the Python that has them."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import limits
from throttled.rate_limiter import gcra, sliding_window

LIMITS = Path(limits.__file__).parent / "resources" / "redis" / "lua_scripts"

json.dump(
    {
        "limits": version("limits"),
        "limits, moving window": (LIMITS / "acquire_moving_window.lua").read_text(),
        "limits, what remains": (LIMITS / "moving_window.lua").read_text(),
        "limits, window counter": (LIMITS / "acquire_sliding_window.lua").read_text(),
        "throttled-py": version("throttled-py"),
        "throttled-py, sliding window": sliding_window.RedisLimitAtomicActionSpec.SCRIPTS,
        "throttled-py, GCRA": gcra.RedisLimitAtomicActionSpec.SCRIPTS,
    },
    sys.stdout,
)
