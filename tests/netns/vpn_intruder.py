"""A client with a token that keeps to no rule, run by `test_vpn_company_netns` in a namespace:
`python -m tests.netns.vpn_intruder SERVER_ID ADDRESS TOKEN` does one thing after the other, prints
how each connection ended, and then stays, reading nothing.
"""

import asyncio
import sys
from ipaddress import ip_address

from tests.support.ip_packets import udp

from tunnel_rs.errors import LinkClosedError
from tunnel_rs.iroh.endpoint import Endpoint
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.exchange import Exchange
from tunnel_rs.net.link import ByteStream, Link
from tunnel_rs.proto.vpn_frames import PING, packet_frame
from tunnel_rs.proto.vpn_handshake import ALPN, VpnRequest, decode_response, encode_request
from tunnel_rs.reports import silent
from tunnel_rs.values import EndpointId, Secret, SocketAddr


async def join(endpoint: Endpoint, server: EndpointId, token: str) -> tuple[Link, str, ByteStream]:
    """A link whose data stream nobody reads, and our address."""
    link = await endpoint.connect(server, timeout=20)
    exchange = Exchange(await link.open_stream())
    exchange.send_encoded(encode_request(VpnRequest(7, Secret(token))))
    exchange.stream.write_eof()
    lease = decode_response(await exchange.receive()).lease4
    assert lease is not None
    stream = await link.open_stream()
    stream.write(PING)
    return link, str(lease.address), stream


def forgeries(own: str, server: str) -> bytes:
    """Packets from addresses that are not ours, and what is no packet at all."""
    sources = (server, str(ip_address(own) + 1), "127.0.0.1", "192.0.2.3", "224.0.0.1")
    packets = [udp(source, server, (9, 9)) for source in sources]
    good = udp(own, server, (9, 9))
    return b"".join(map(packet_frame, (*packets, b"", b"junk", good[:-1], b"\x45" * 40)))


async def main(server: str, address: str, token: str) -> None:
    settings = EndpointSettings(lan_discovery=False, peer_addrs=(SocketAddr.parse(address),))
    endpoint = await Endpoint.bind(settings, accept=False, report=silent, alpn=ALPN)
    peer = EndpointId.parse(server)
    link, own, stream = await join(endpoint, peer, token)
    stream.write(forgeries(own, "10.7.0.1"))
    stream.write(b"\0" + (65_537).to_bytes(4, "big") + bytes(65_537))
    print(await _end(link), flush=True)
    link, own, stream = await join(endpoint, peer, token)
    stream.write(b"\x77")
    print(await _end(link), flush=True)
    link, own, stream = await join(endpoint, peer, token)
    # Asks for more than it ever reads: each is answered by the kernel of the server's machine.
    question = udp(own, "10.7.0.1", (9, 9), bytes(1300))
    for _ in range(3000):
        stream.write(packet_frame(question))
        await asyncio.sleep(0)
    print("silent", flush=True)
    while True:
        stream.write(PING)
        await asyncio.sleep(5)


async def _end(link: Link) -> str:
    error = await link.wait_closed()
    assert isinstance(error, LinkClosedError)
    return error.reason


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
