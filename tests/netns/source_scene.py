"""The processes of `test_source_address`: a server on all addresses, and a client that dials one.

Arguments: `server mirror|plain|endpoint` or `client <server's id> <ip> <port>`.
"""

import asyncio
import json
import sys

from tunnel_rs.errors import TunnelError
from tunnel_rs.iroh.endpoint import Endpoint
from tunnel_rs.iroh.settings import EndpointSettings
from tunnel_rs.net.quic import QuicEndpoint, UdpFace
from tunnel_rs.net.udp import UdpSocket
from tunnel_rs.proto.raw_keys import Identity
from tunnel_rs.proto.transport_settings import TransportSettings
from tunnel_rs.reports import silent
from tunnel_rs.values import EndpointId, Secret, SocketAddr

SEED = Secret(bytes(range(32)))


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


async def plain_server(*, mirror: bool) -> None:
    quic = QuicEndpoint(Identity(SEED), TransportSettings(), accept=True)
    ports = {}
    for ip in ("0.0.0.0", "::"):
        socket = UdpSocket.bind(SocketAddr(ip, 0), mirror=mirror)
        quic.add_face(UdpFace(socket))
        socket.start(quic)
        ports[ip] = socket.address.port
    say(id=str(quic.identity.endpoint_id), ports=ports)
    await asyncio.Event().wait()


async def endpoint_server() -> None:
    settings = EndpointSettings(secret_key=SEED, lan_discovery=False)
    server = await Endpoint.bind(settings, accept=True, report=silent)
    say(id=str(server.endpoint_id), ports={each.ip: each.port for each in server._bound()})
    while True:
        await server.accept()


async def client(peer: str, ip: str, port: str) -> None:
    settings = EndpointSettings(peer_addrs=(SocketAddr(ip, int(port)),), lan_discovery=False)
    endpoint = await Endpoint.bind(settings, accept=False, report=silent)
    try:
        link = await endpoint.connect(EndpointId.parse(peer), timeout=2)
        stream = await link.open_stream()
        stream.write(bytes(200_000))
        stream.write_eof()
        say(reached=link.address)
    except TunnelError as error:
        say(error=str(error))
    await endpoint.close()


def main(role: str, *arguments: str) -> None:
    if role == "client":
        asyncio.run(client(*arguments))
    elif arguments == ("endpoint",):
        asyncio.run(endpoint_server())
    else:
        asyncio.run(plain_server(mirror=arguments == ("mirror",)))


if __name__ == "__main__":
    main(*sys.argv[1:])
