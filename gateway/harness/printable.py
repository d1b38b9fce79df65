"""What came from elsewhere, a recording or a gateway, as a terminal may be given it."""

from __future__ import annotations


def printable(text: str) -> str:
    """Without what a terminal would obey instead of show: each such character is one that stands for it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
