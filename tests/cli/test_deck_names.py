"""Names of files as names for people."""

from __future__ import annotations

import pytest

from server.cli.importing import read_name


@pytest.mark.parametrize(
    ("stem", "number", "name"),
    [
        ("01-risk-management", 1, "Risk Management"),
        ("gdpr", None, "GDPR"),
        ("bcp-dr", None, "BCP/DR"),
        ("ics-scada-iot", None, "ICS/SCADA/IoT"),
        ("access-control-and-iam", None, "Access Control and IAM"),
        ("sdn-microsegmentation", None, "SDN Microsegmentation"),
        ("07_the_end_of_all", 7, "The End of All"),
        ("3. Zero-day attacks", 3, "Zero Day Attacks"),
        ("Risk Management", None, "Risk Management"),
        ("iPhone basics", None, "iPhone Basics"),
        ("u\N{COMBINING DIAERESIS}bung", None, "Übung"),
        ("2024", None, "2024"),
        ("-", None, ""),
    ],
)
def test_a_stem_is_a_number_and_a_name(stem: str, number: int | None, name: str) -> None:
    """A leading number is the order, words get capitals, abbreviations their spelling."""
    assert (number, name) == read_name(stem)
