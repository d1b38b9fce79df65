"""The WebSocket frames that nearly all messages are: one whole text each, with a short or a medium length (RFC 6455, 5.2)."""

from __future__ import annotations

WHOLE_TEXT, MASKED = 0x81, 0x80
"""The first byte of a frame that is a whole text message; the bit of the second that every client must set."""
SHORT_HEAD = 6
"""First byte, length, and the mask's four."""
SHORT_MAX, MEDIUM, MEDIUM_MAX = 125, 126, 65_535
"""Lengths that stand in the second byte; the one there that announces two bytes of length; the longest of those."""


def text_frame(payload: bytes) -> bytes:
    """A message as a server sends it: text, whole, without a mask."""
    size = len(payload)
    if size <= SHORT_MAX:
        return b"\x81%c%b" % (size, payload)
    if size <= MEDIUM_MAX:
        return b"\x81\x7e%b%b" % (size.to_bytes(2), payload)
    return b"\x81\x7f%b%b" % (size.to_bytes(8), payload)
