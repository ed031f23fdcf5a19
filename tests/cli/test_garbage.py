"""What a serving process does about Python's cycle collector."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, weakref
from server.app import settle_garbage_collection

class Node:
    pass

def cycle():
    one = Node()
    one.itself = one
    return weakref.ref(one)

early, lasting = cycle(), [Node()]
settle_garbage_collection()
frozen = gc.get_freeze_count()
late = cycle()
watched = [entry for entry in gc.get_objects() if entry is lasting]
gc.collect()
print(early() is None, frozen > 1000, len(watched), late() is None)
"""


def test_only_what_came_after_the_start_is_looked_at() -> None:
    """What is alive at the start is exempt from collection; cycles from before and from afterwards are collected."""
    printed = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    assert printed.stdout.split() == ["True", "True", "0", "True"]
