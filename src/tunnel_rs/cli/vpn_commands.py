"""What a running VPN server or client does when its control socket asks for it.

As `control_commands`. Its status is that of every program, and what only a VPN has to tell.
"""

import asyncio
from collections.abc import Callable, Mapping

from tunnel_rs.cli.control_commands import KILLED, MIN_PEER, ping_command
from tunnel_rs.cli.operations import Command
from tunnel_rs.cli.plain import plain
from tunnel_rs.errors import LocalError
from tunnel_rs.net.control_socket import Request
from tunnel_rs.reports import ProgramStatus
from tunnel_rs.values import quoted
from tunnel_rs.vpn.client import VpnClient
from tunnel_rs.vpn.server import VpnServer
from tunnel_rs.vpn.status import of_client, of_server

Common = Callable[[], ProgramStatus]


def vpn_server_commands(
    server: VpnServer, common: Common, reload: Callable[[], str]
) -> Mapping[str, Command]:
    """`reload` reads the tokens again, and says in a line what they are. Raises TunnelError."""
    loop = asyncio.get_running_loop()

    async def kill(request: Request) -> Mapping[str, object]:
        who = request.get("peer")
        if not isinstance(who, str) or not ("." in who or ":" in who or len(who) >= MIN_PEER):
            raise LocalError(f"give an address in the VPN, or {MIN_PEER} characters of an id")
        if not (count := server.disconnect(who.lower(), KILLED)):
            raise LocalError(f"no client is connected that has the id or address {quoted(who)}")
        return {"clients": count}

    async def read_again(_: Request) -> Mapping[str, object]:
        return {"settings": reload()}

    return {
        "status": _status(common, lambda: of_server(server, loop.time())),
        "kill": kill,
        "reload": read_again,
        "ping": ping_command(server.ping),
    }


def vpn_client_commands(client: VpnClient, common: Common) -> Mapping[str, Command]:
    return {
        "status": _status(common, lambda: of_client(client)),
        "ping": ping_command(client.ping),
    }


def _status(common: Common, special: Callable[[], Mapping[str, object]]) -> Command:
    async def answer(_: Request) -> Mapping[str, object]:
        status = plain(common())
        assert isinstance(status, dict)
        return {**status, **special()}

    return answer
