"""Addresses and ports: from a host name to the one address that Triton listens on, and ports that are free.

Triton 2.51 takes addresses only: given the name `localhost`, its HTTP server listens on 255.255.255.255.
"""

from __future__ import annotations

import ipaddress
import random
import socket

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def numeric(host: str) -> str:
    """The address that `host` is or resolves to, IPv4 before IPv6.

    Raises ValueError for a name that resolves to nothing or to several addresses, and for an address that no
    server can listen on. Whether the address belongs to this machine is left to serve.preflight.
    """
    addresses = _resolved(host)
    found = [address for address in addresses if address.version == 4] or addresses
    if len(found) > 1:
        raise ValueError(f"should have a single address ({', '.join(map(str, found))} were found)")
    address = found[0]
    if address.is_multicast or address == ipaddress.IPv4Address("255.255.255.255"):
        raise ValueError("should be an address that a server can listen on")
    return str(address)


def authority(host: str, port: int) -> str:
    """`host:port` as it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now, for a server that is started in a moment.

    Below 32768, where Linux begins to give ports to outgoing connections: none of these is taken meanwhile.
    """
    ports: list[int] = []
    while len(ports) < count:
        port = random.randrange(10_000, 32_000)  # noqa: S311
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def _resolved(host: str) -> list[IPAddress]:
    try:
        results = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise ValueError(f"should be an address, or a name that resolves to one ({reason})") from None
    found: list[IPAddress] = []
    for _, _, _, _, address_and_port in results:
        address = ipaddress.ip_address(address_and_port[0])
        if isinstance(address, ipaddress.IPv6Address):
            if len(address_and_port) == 4 and address_and_port[3]:
                raise ValueError("should be an address without a zone (%)")
            address = address.ipv4_mapped or address
        if address not in found:
            found.append(address)
    return found
