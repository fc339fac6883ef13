"""Which names of this server a request may carry in its Host header where no keys are asked for.

A page of any site can make its own name resolve to 127.0.0.1 (DNS rebinding). A browser then takes this
server for the page's own site and lets the page read every answer; only the Host header still shows the
page's name. An IP address cannot be rebound.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from serve.settings import Settings

from .errors import ApiError, shown

_AUTHORITY = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~%-]+)?)\]|(?P<name>[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?))"
    r"(?::(?P<port>[0-9]{1,5})?)?"
)


class Hosts:
    """The names that are answered: loopback's, the configured `host`, and those of the setting `hosts`."""

    def __init__(self, settings: Settings) -> None:
        names = [name.strip().lower().rstrip(".") for name in settings.hosts.split(",") if name.strip()]
        self._any = "*" in names
        self._exact = {"localhost", settings.host.lower().rstrip("."), *names}
        self._domains = (".localhost", *(name[1:] for name in names if name.startswith("*.")))

    def check(self, environ: Mapping[str, Any]) -> None:
        """Raises ApiError, 400 or 421, unless the request was sent to one of the names."""
        if self._any:
            return
        sent = environ.get("HTTP_HOST")
        # `GET http://name/path`: HTTP puts this name above the header, so both have to be known.
        for key in ("RAW_URI", "REQUEST_URI"):
            target = str(environ.get(key) or "/")
            if not target.startswith("/") and target != "*":
                self._check_one(_authority(target))
        if sent is None:
            # HTTP/1.0 did not have the header yet, and no browser leaves it out.
            if environ.get("SERVER_PROTOCOL") != "HTTP/1.0":
                raise ApiError("host_missing", "the Host header is missing")
        else:
            self._check_one(str(sent))

    def _check_one(self, sent: str) -> None:
        found = _AUTHORITY.fullmatch(sent.strip(" \t"))
        if found is None or int(found["port"] or 0) > 65_535:
            raise ApiError("invalid_host", f"Host must be a name or an address, not {shown(sent)}")
        name = (found["v6"] or found["name"]).lower().removesuffix(".")
        if _is_address(name) or name in self._exact or name.endswith(self._domains):
            return
        message = (
            f"this server does not serve the host {shown(sent)}; if that is one of its names, "
            "add it to the setting hosts (YOUTU_HOSTS)"
        )
        raise ApiError("unknown_host", message)


def _authority(target: str) -> str:
    try:
        return urlsplit(target).netloc
    except ValueError:
        return target


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
