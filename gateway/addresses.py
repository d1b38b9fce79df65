"""Where a client comes from: the peer's address, or what a trusted proxy says of it; and what counts as one address."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

HOPS_MAX = 32
"""Hops looked at in a forwarded header; longer chains do not exist, and longer headers are attacks."""


class Addresses:
    """Tells clients apart. `trusted_proxies` are the networks whose X-Forwarded-For is believed."""

    def __init__(self, trusted_proxies: Iterable[str]) -> None:
        self._trusted = tuple(ip_network(text) for text in trusted_proxies)

    def client(self, peer: str, forwarded: Sequence[str]) -> str:
        """What the client counts as, given the peer's address and the values of X-Forwarded-For in their order.

        Each proxy appends who spoke to it, so the header is read from its right end: the first hop that is no trusted
        proxy is the client; what stands left of it may be invented. A header that is wrong up to there is not believed at all.
        """
        direct = _parsed(peer)
        if direct is None:
            return peer
        if not self._trusts(direct):
            return counted(direct)
        hops = [_parsed(hop) for hop in ",".join(forwarded).rsplit(",", HOPS_MAX)[-HOPS_MAX:]]
        client = direct
        for hop in reversed(hops):
            if hop is None:
                return counted(direct)
            client = hop
            if not self._trusts(hop):
                break
        return counted(client)

    def _trusts(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


@lru_cache(maxsize=4096)
def _parsed(text: str) -> Address | None:
    """An address as proxies write it: also with a port, in brackets, or an IPv4 one inside IPv6. None for anything else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (isinstance(address, IPv6Address) and address.ipv4_mapped) or address


def counted(address: Address) -> str:
    """The address, or the /64 of an IPv6 one: whoever has one address there has all of them."""
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address) >> 64 << 64, 64)))
