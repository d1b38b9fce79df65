"""The OS user that the embedded PostgreSQL runs as, and running its tools as that user. Never root, and no user is made."""

from __future__ import annotations

import os
import pwd
import subprocess
from collections.abc import Sequence
from pathlib import Path

from gateway.errors import StartupError

COMMAND_TIMEOUT_S = 15
"""What a command gets that should answer at once, and pg_ctl on top of the limit that it keeps itself."""


def server_user() -> pwd.struct_passwd:
    """Whom the server runs as: PostgreSQL refuses root, and wants a user that has a name."""
    try:
        return pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise StartupError(
            f"PostgreSQL has no OS user to run as ({error}): add it to /etc/passwd, or set GATEWAY_DATABASE_URL"
        ) from None


def give_to_server(path: Path) -> None:
    """Makes a file or folder of ours the server's, when we are root."""
    if os.geteuid() == 0:
        os.chown(path, server_user().pw_uid, server_user().pw_gid, follow_symlinks=False)


def require_enterable(folder: Path) -> None:
    """Tries as the server's user, since modes alone do not tell; names the topmost folder that stands in the way."""
    for step in (*reversed(folder.parents), folder):
        if run(("test", "-x", step), COMMAND_TIMEOUT_S, as_server=True).returncode != 0:
            raise StartupError(
                f"the user {server_user().pw_name}, as whom PostgreSQL runs (never as root), cannot enter the folder"
                f" {step}: make it if it is missing, `chmod o+x {step}`, set another GATEWAY_DATA_DIR, run the gateway"
                " as another user, or set GATEWAY_DATABASE_URL to a server of your own"
            )


def run(
    command: Sequence[str | Path], limit_s: float, *, as_server: bool = False, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, with a clean environment and out of the terminal's reach."""
    user = server_user() if as_server and os.geteuid() == 0 else None
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return subprocess.run(  # noqa: S603 - no shell, and only the tools named in this file
        command,
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        timeout=limit_s,
        cwd="/",
        env=environment | {"LC_ALL": "C"},
        start_new_session=True,
        user=user.pw_uid if user else None,
        group=user.pw_gid if user else None,
        extra_groups=[] if user else None,
    )
