"""As much of PromQL as it takes to see which metrics an expression names."""

from __future__ import annotations

import re

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_NO_METRICS = re.compile(
    r"\{[^}]*\}"  # label matchers
    r"|\[[^\]]*\]"  # ranges
    r"|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)"  # names of labels
)
_NAME = re.compile(r"\b[a-zA-Z_:][\w:]*(?!\w)(?!\s*\()")
_WORDS = {"and", "or", "unless", "bool", "by", "without", "on", "ignoring", "group_left", "group_right"}


def metric_names(expression: str) -> set[str]:
    """The metrics that an expression selects: what is no function, keyword, label or string."""
    return set(_NAME.findall(_NO_METRICS.sub(" ", _STRING.sub("", expression)))) - _WORDS
