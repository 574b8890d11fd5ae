"""The host's process of `test_router_port_netns`: keeps a port of the router's until told to end.

    python -m tests.netns.router_scene WAY

WAY is `PCP`, `NAT-PMP` or `UPnP`, or `IPv6` for a pinhole of the host's address. It prints where it
can be reached and what it then gets, a line each, and gives the port back when its stdin ends.
"""

import asyncio
import sys
from collections.abc import Sequence
from ipaddress import IPv4Address
from itertools import chain

from tunnel_rs.net import port_control
from tunnel_rs.net.interfaces import local_interfaces
from tunnel_rs.net.pinholes import Pinholes
from tunnel_rs.net.port_control import PortControl
from tunnel_rs.net.router_port import Mapping, RouterPort
from tunnel_rs.net.upnp import UpnpPort
from tunnel_rs.values import SocketAddr


class Said(asyncio.DatagramProtocol):
    def datagram_received(self, data: bytes, addr: object) -> None:
        say(data.decode())


def say(text: str) -> None:
    print(text, flush=True)


def ways(gateway: IPv4Address, port: int) -> Sequence[Mapping]:
    match sys.argv[1]:
        case "PCP":
            return [PortControl(gateway, port)]
        case "NAT-PMP":
            return [PortControl(gateway, port, pcp=False)]
    return [UpnpPort(gateway, port)]


def changed(external: SocketAddr | None) -> None:
    say(str(external))


async def main() -> None:
    # A question asked twice renews the pinhole, and miniupnpd does not close one that was renewed.
    port_control.RETRY_WAITS = (30.0,)
    loop = asyncio.get_running_loop()
    is_6 = sys.argv[1] == "IPv6"
    local = ("::" if is_6 else "0.0.0.0", 0)
    transport, _ = await loop.create_datagram_endpoint(Said, local_addr=local)
    port = transport.get_extra_info("sockname")[1]
    router: RouterPort | Pinholes
    if is_6:
        own = list(chain.from_iterable(each.ipv6 for each in local_interfaces()))
        router = Pinholes(port, lambda: own, changed, say)
    else:
        router = RouterPort(port, changed, say, ways=ways)
    router.start()
    ended = asyncio.Event()
    loop.add_reader(sys.stdin, ended.set)
    await ended.wait()
    await router.close()
    transport.close()


if __name__ == "__main__":
    asyncio.run(main())
