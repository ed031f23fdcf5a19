"""Names for people out of names of files: `01-risk-management.tsv` is Risk Management, and comes first."""

from __future__ import annotations

import re
import unicodedata

_NUMBERED = re.compile(r"(?P<number>\d{1,6})[-_. ]+(?P<words>.+)")
_SMALL_WORDS = frozenset(
    ("a", "an", "and", "as", "at", "by", "for", "from", "in", "of", "on", "or", "the", "to", "vs", "with")
)
_SPELLED = (
    "ABAC ACL AES AI API APIs ARP AWS BCP BIA CA CAP CI/CD CIA CISSP CPU CSS DAC DDoS DES DevOps DevSecOps DLP DNS "
    "DNSSEC DoS DR FTP GCP GDPR HIPAA HTML HTTP HTTPS IaaS IAM ICMP ICS IDS IoT IP IPS IPsec IPv4 IPv6 ISC2 ISO IT "
    "JSON JWT LAN LDAP MAC MFA ML NAC NAT NIST OAuth OIDC OSI OT OWASP PaaS PCI PII PKI PHI RAID RBAC REST RSA SaaS "
    "SAML SAN SCADA SDLC SDN SIEM SLA SOC SOX SQL SSH SSL SSO TCP TLS TOTP UDP UI UPS URL USB VLAN VM VPN WAF WAN "
    "XML XSS"
)
_SPELLING = {word.lower(): word for word in _SPELLED.split()}


def read_name(stem: str) -> tuple[int | None, str]:
    """The number and the name that a file's or folder's name stands for.

    Words in lower case get a capital (not the small ones between them), abbreviations their usual spelling; a name
    of nothing but abbreviations is joined by slashes: `bcp-dr` is BCP/DR. A word with a capital stays as it is.

    Args:
        stem: without an ending such as `.tsv`.

    Returns:
        The leading number, or None without one, and the name.
    """
    stem = unicodedata.normalize("NFC", stem).strip()
    numbered = _NUMBERED.fullmatch(stem)
    number = int(numbered["number"]) if numbered else None
    words = re.split(r"[-_\s]+", (numbered["words"] if numbered else stem).strip("-_ "))
    separator = "/" if all(word in _SPELLING for word in words) else " "
    return number, separator.join(_spell(word, first=at == 0) for at, word in enumerate(words))


def _spell(word: str, *, first: bool) -> str:
    if word in _SPELLING:
        return _SPELLING[word]
    if word != word.lower() or (word in _SMALL_WORDS and not first):
        return word
    return word[:1].upper() + word[1:]
