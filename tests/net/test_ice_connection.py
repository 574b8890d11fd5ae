import asyncio
import os
from typing import Any

import pytest
from aioice import stun
from aioice.candidate import Candidate
from aioice.ice import CandidatePair
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.net.ice_connection import (
    MAX_REMOTE_CANDIDATES,
    IceConnection,
    IceProtocol,
    is_relayed,
    is_stun,
)

USER, PASSWORD = "u" * 16, "p" * 22


class Transport:
    """Keeps what is sent."""

    def __init__(self, protocol: IceProtocol) -> None:
        self.sent: list[tuple[bytes, Any]] = []
        self._protocol = protocol

    def sendto(self, data: bytes, addr: Any) -> None:
        self.sent.append((data, addr))

    def close(self) -> None:
        self._protocol.connection_lost(None)


def made(*, controlling: bool = False, kind: str = "host") -> tuple[IceConnection, IceProtocol]:
    connection = IceConnection(controlling=controlling, username=USER, password=PASSWORD)
    protocol = IceProtocol(connection)
    protocol.connection_made(Transport(protocol))  # type: ignore[arg-type]
    protocol.local_candidate = Candidate("1", 1, "udp", 1, "192.0.2.1", 9, kind)
    connection.adopt(protocol, protocol.local_candidate)
    connection.remote_username, connection.remote_password = "r" * 16, "s" * 22
    connection._early_checks_done = True
    return connection, protocol


def sent(protocol: IceProtocol) -> list[tuple[bytes, Any]]:
    transport = protocol.transport
    assert isinstance(transport, Transport)
    return transport.sent


def check(password: str = PASSWORD, **attributes: Any) -> bytes:
    request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    request.attributes["USERNAME"] = f"{USER}:{'r' * 16}"
    request.attributes.update(attributes)
    request.add_message_integrity(password.encode())
    return bytes(request)


GOOD = {"PRIORITY": 7, "ICE-CONTROLLING": 1}
PEER = ("198.51.100.1", 4000)


async def test_only_an_address_that_knows_the_password_is_heard() -> None:
    connection, protocol = made()
    heard: list[Any] = []
    connection.sink = lambda path, train, size: heard.append((path, bytes(train), size))
    path = (protocol.id, *PEER)
    protocol.datagram_received(b"\x40stranger", PEER)
    protocol.stun_received(check("x" * 22, **GOOD), PEER)
    assert not connection.trusts(path) and not heard
    protocol.stun_received(check(**GOOD), PEER)
    assert connection.trusts(path)
    protocol.datagram_received(b"\x40peer", PEER)
    assert heard == [(path, b"\x40peer", 5)]
    await connection.close()


@pytest.mark.parametrize(
    "attributes", [{}, {"ICE-CONTROLLING": 1}, {"PRIORITY": 7, "ICE-CONTROLLED": 1}]
)
async def test_an_incomplete_check_is_survived(attributes: dict[str, Any]) -> None:
    connection, protocol = made()
    protocol.stun_received(check(**attributes), PEER)
    assert sent(protocol)
    await connection.close()


@given(st.binary(max_size=200))
def test_no_datagram_raises(data: bytes) -> None:
    async def run() -> None:
        connection, protocol = made()
        head = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        for datagram in (
            data,
            b"\0\1" + data,
            bytes(head)[:2] + len(data).to_bytes(2, "big") + bytes(head)[4:] + data,
        ):
            protocol.datagram_received(datagram, PEER)
        await connection.close()

    asyncio.run(run())


async def test_a_nomination_makes_the_pair_valid_at_once() -> None:
    connection, protocol = made()
    protocol.stun_received(check(**GOOD, **{"USE-CANDIDATE": None}), PEER)
    pair = connection.nominated
    assert pair is not None and pair.remote_addr == PEER
    protocol.stun_received(check(**GOOD, **{"USE-CANDIDATE": None}), ("198.51.100.2", 1))
    assert connection.nominated is pair
    await connection.close()


async def test_addresses_that_show_up_in_checks_are_bounded() -> None:
    connection, protocol = made()
    for port in range(1, MAX_REMOTE_CANDIDATES + 50):
        protocol.stun_received(check(**GOOD), ("198.51.100.1", port))
    assert len(connection.remote_candidates) == MAX_REMOTE_CANDIDATES
    await connection.close()


async def test_relays_are_held_back_until_direct_paths_had_their_time() -> None:
    connection, protocol = made(kind="relay")
    protocol.stun_received(check(**GOOD), PEER)
    assert not sent(protocol)  # not even an answer
    connection._relays_from = 0.0
    protocol.stun_received(check(**GOOD), PEER)
    assert sent(protocol)
    [pair] = connection._check_list
    assert is_relayed(pair)
    await connection.close()


async def test_a_failed_check_is_begun_anew_after_a_pause() -> None:
    connection, protocol = made(controlling=True)
    connection._relays_from = 0.0
    pair = CandidatePair(protocol, Candidate("2", 1, "udp", 1, *PEER, "host"))
    pair.state = CandidatePair.State.FAILED
    connection._check_list.append(pair)
    connection.check_complete(pair)
    assert connection._check_periodic() and pair.state is CandidatePair.State.FAILED
    connection._failed[pair] = 0.0
    assert connection._check_periodic() and pair.task is not None
    await connection.close()


async def test_another_pair_is_nominated_when_the_chosen_one_fails() -> None:
    connection, protocol = made(controlling=True)
    pairs = [
        CandidatePair(protocol, Candidate("2", 1, "udp", 1, "198.51.100.1", n, "host"))
        for n in (1, 2)
    ]
    pairs[0].state, pairs[1].state = CandidatePair.State.FAILED, CandidatePair.State.SUCCEEDED
    connection._check_list.extend(pairs)
    connection._nominating.add(1)
    connection.build_request(pairs[0], nominate=True)
    connection.check_complete(pairs[0])
    assert not connection._nominating and pairs[1].state is CandidatePair.State.WAITING
    await connection.close()


async def test_silence_costs_the_consent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnel_rs.net.ice_connection.CONSENT_INTERVAL", 0.01)
    monkeypatch.setattr("tunnel_rs.net.ice_connection.CONSENT_LIFETIME", 0.03)
    connection, _ = made()
    lost = asyncio.Event()
    connection.on_consent_lost = lost.set
    await asyncio.gather(connection.query_consent(), lost.wait())
    await connection.close()


def test_the_first_byte_tells_stun_from_quic() -> None:
    assert all(is_stun(bytes([n])) for n in range(4))
    assert not is_stun(b"") and not is_stun(b"\x40") and not is_stun(b"\xc0")
    assert not is_stun(os.urandom(1)[:0])
