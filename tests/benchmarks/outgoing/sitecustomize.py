"""Notes what a Python process sends beyond this machine; Python imports this by itself where the folder is in its path.

Each attempt, whether it comes to anything or not, is a line in the file that ``OUTGOING_LOG`` names.
"""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import Any

# Where the host stands among the arguments of an audit event: alone, or first in an address.
_HOST = {"socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.gethostbyaddr": 0, "socket.getnameinfo": 0}
_ADDRESS = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1}


def host_in(event: str, arguments: tuple[Any, ...]) -> Any:
    """The host that an event is about; ``None`` for other events, and for sockets that are files."""
    if event in _HOST:
        host = arguments[_HOST[event]]
    elif event in _ADDRESS:
        host = arguments[_ADDRESS[event]]
    else:
        return None
    return host[0] if isinstance(host, tuple) else host if event in _HOST else None


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
    host = host_in(event, arguments)
    if not is_here(host):
        with open(os.environ["OUTGOING_LOG"], "a", encoding="utf-8") as log:
            log.write(f"{event} {host}\n")


if "OUTGOING_LOG" in os.environ:
    sys.addaudithook(_note)
