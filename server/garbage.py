"""Python's cycle collector, set for a server: it looks at what requests leave behind, not at the whole process."""

from __future__ import annotations

import gc

# Python's defaults (700, 10, 10) look for cycles every few requests. Requests leave none behind but where something
# raises, so a look every few hundred of them is soon enough: the memory in question is some megabytes.
THRESHOLDS = (10_000, 50, 100)


def settle_garbage_collection() -> None:
    """Collect once, exempt what is alive from every later collection, and collect less often.

    For a process that has finished starting: modules, routes and schemas live as long as it does, and each full
    collection would walk through all of them (`gc.freeze`).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
