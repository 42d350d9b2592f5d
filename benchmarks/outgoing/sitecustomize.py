"""Notes what a Python process sends beyond this machine; Python imports this by itself where the folder is in its path.

Each attempt, whether it comes to anything or not, is a line in the file that ``OUTGOING_LOG`` names.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import Any

# Where the host, or the address that begins with it, stands among the arguments of an audit event.
_WATCHED = {
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
    "socket.gethostbyaddr": 0,
    "socket.getnameinfo": 0,
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
}


def host_in(event: str, arguments: tuple[Any, ...]) -> Any:
    """The host that a watched event is about; ``None`` for sockets that are files."""
    host = arguments[_WATCHED[event]]
    if isinstance(host, tuple):
        return host[0]
    return None if event.startswith(("socket.connect", "socket.send")) else host


def is_here(host: Any) -> bool:
    """Whether a host is this machine by its own name or a loopback address."""
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _WATCHED and not is_here(host := host_in(event, arguments)):
        with open(os.environ["OUTGOING_LOG"], "a", encoding="utf-8") as log:
            log.write(f"{event} {host}\n")


if "OUTGOING_LOG" in os.environ:
    sys.addaudithook(_note)
