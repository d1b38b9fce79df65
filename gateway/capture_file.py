"""The file that a capture writes: new, for its owner alone, of a limited size, and left as it is once a write fails."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from gateway.errors import StartupError
from gateway.settings import Settings


class CaptureFile:
    """Unbuffered: what is written is in the file, and closing it has nothing left to write. `ended` is told why no more
    is written.
    """

    def __init__(self, settings: Settings, header: bytes, ended: Callable[[str, str], None]) -> None:
        """Makes a file of GATEWAY_CAPTURE_DIR that begins with the header. Raises StartupError."""
        name = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}.ndjson"
        self.path = Path(settings.capture_dir) / name
        self.writes = True
        self._bytes_max = settings.capture_file_bytes_max
        self._ended = ended
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._bytes = os.write(self._descriptor, header)
        except OSError as error:
            raise StartupError(
                f"Cannot record into {self.path} ({error.strerror}): set GATEWAY_CAPTURE_DIR to another folder."
            ) from None

    def write(self, text: bytes) -> int:
        """Writes lines; returns how many are whole in the file."""
        if self.writes and self._bytes + len(text) > self._bytes_max:
            self._end("file full", "GATEWAY_CAPTURE_FILE_BYTES_MAX")
        written = 0
        try:
            while self.writes and written < len(text):
                written += os.write(self._descriptor, text[written:])
        except OSError as error:
            self._end("disk failed", error.strerror)
        self._bytes += written
        return text.count(b"\n", 0, written)

    def close(self) -> None:
        try:
            os.close(self._descriptor)
        except OSError as error:
            self._end("disk failed", error.strerror)

    def _end(self, reason: str, cause: str | None) -> None:
        self.writes = False
        self._ended(reason, str(cause))
