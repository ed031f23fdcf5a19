"""The benchmark of the log's volume measures every request of a student."""

from __future__ import annotations

import pytest

from bench.log_volume import measure_log_volume


@pytest.mark.long
def test_deploy_17_the_volume_of_the_log_is_measured() -> None:
    """A student's requests leave what their lines of JSON have in bytes, which compresses well."""
    (volume,) = measure_log_volume(1, ["json"])
    assert ("json", 16) == (volume.form, volume.requests)
    assert 300 < volume.each < 2000
    assert volume.gzipped < volume.each / 2
