"""Application entities of DICOM: who speaks with whom, written as ``AET@HOST`` or ``AET@HOST:PORT``."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import dataclass

from gsvr.errors import InputError

_ADDRESS = re.compile(r"(?P<title>[!-?A-\[\]-~ ]{1,16})@(?P<host>[^\s@]+?)(:(?P<port>\d{1,5}))?")
DEFAULT_PORT = 104


@dataclass(frozen=True)
class Peer:
    """An application entity.

    Attributes
    ----------
    title
        Its AE title, at most 16 characters.
    host
        Name or address of its machine.
    port
        Where it listens.
    """

    title: str
    host: str
    port: int = DEFAULT_PORT

    @staticmethod
    def parse(text: str) -> Peer:
        """Read ``AET@HOST`` or ``AET@HOST:PORT``.

        Raises
        ------
        InputError
            If it is something else.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None or not match["title"].strip() or not 0 < int(match["port"] or DEFAULT_PORT) < 65536:
            raise InputError(
                f"{text[:80]!r} is no DICOM node: give AET@HOST or AET@HOST:PORT, the title up to 16 letters"
            )
        return Peer(match["title"].strip(), match["host"], int(match["port"] or DEFAULT_PORT))

    def __str__(self) -> str:
        return f"{self.title}@{self.host}:{self.port}"

    def addresses(self) -> set[str]:
        """What the name of the machine stands for now; empty if nobody knows."""
        try:
            return {str(entry[4][0]) for entry in socket.getaddrinfo(self.host, None)}
        except OSError:
            return set()


def check_title(title: str) -> str:
    """Refuse what is no AE title.

    Raises
    ------
    InputError
        If it is empty, too long, or has characters that titles do not have.
    """
    Peer.parse(f"{title}@localhost")
    return title


def is_loopback(host: str) -> bool:
    """Whether an address is one that only this machine reaches."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
