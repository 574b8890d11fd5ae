"""Our address discovery client against the real `iroh-relay`, and ours beside it."""

from pathlib import Path

import pytest
from tests.interop.test_relay_rust import PROGRAM, rust_relay
from tests.net.test_qad import discovery
from tests.support.relay_peers import write_certificate
from tests.support.servers import free_port

from tunnel_rs.errors import UnreachableError
from tunnel_rs.net.qad import system_trust
from tunnel_rs.values import SocketAddr

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(PROGRAM is None, reason="iroh-relay is not installed (IROH_RELAY_BIN)"),
]


async def test_it_tells_our_client_its_address(tmp_path: Path) -> None:
    certificate, key = write_certificate(tmp_path)
    port = free_port()
    config = (
        "enable_quic_addr_discovery = true\n[tls]\ncert_mode = 'Manual'\n"
        f"https_bind_addr = '127.0.0.1:{free_port()}'\nquic_bind_addr = '127.0.0.1:{port}'\n"
        f"manual_cert_path = '{certificate}'\nmanual_key_path = '{key}'\n"
    )
    where, trust = SocketAddr("127.0.0.1", port), system_trust(certificate)
    async with rust_relay(tmp_path, config), discovery() as (asking, sock):
        session = asking.dial(where, "localhost", trust)
        assert await session.observed() == sock.address
        assert session.round_trip is not None
        session.close()
        with pytest.raises(UnreachableError, match="doesn't match"):
            await asking.dial(where, "other.example", trust).observed()
