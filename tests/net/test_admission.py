"""Tests of `tunnel_rs.net.admission`; with real tokens it is tested in `forward.test_gate`."""

import asyncio

import pytest
from tests.support.memory_link import link_pair

from tunnel_rs.errors import LinkClosedError
from tunnel_rs.net.admission import Admission, RefusedError, source_of
from tunnel_rs.net.exchange import Exchange
from tunnel_rs.net.link import ByteStream
from tunnel_rs.proto.auth import FailurePenalties
from tunnel_rs.values import EndpointId

PEER = EndpointId(bytes([7]) * 32)


class Guest:
    """Wrong when its message is `wrong`."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self._exchange: Exchange

    async def judge(self, stream: ByteStream) -> str:
        self._exchange = Exchange(stream)
        return "not you" if await self._exchange.receive() == b"wrong" else ""

    def refuse(self, reason: str) -> None:
        self.answers.append(reason)
        self._exchange.finish_encoded(b"\0\0\0\2no", stop=False)

    def accept(self) -> None:
        self.answers.append("welcome")
        self._exchange.finish_encoded(b"\0\0\0\3yes", stop=False)


async def ask(message: bytes, guest: Guest, penalties: FailurePenalties) -> tuple[bytes, str]:
    """What the guest was answered, and why it was refused, if it was."""
    client, server = link_pair()
    admission = Admission(timeout=5, penalties=penalties)
    admitting = asyncio.create_task(admission.admit(server, guest))
    exchange = Exchange(await client.open_stream())
    exchange.send_encoded(len(message).to_bytes(4, "big") + message)
    answer = await exchange.receive()
    try:
        await admitting
    except RefusedError as refusal:
        closed = await client.wait_closed()
        assert isinstance(closed, LinkClosedError) and closed.reason == "auth_failed"
        return answer, str(refusal)
    return answer, ""


async def test_a_welcome_guest_is_let_in() -> None:
    guest, penalties = Guest(), FailurePenalties()
    assert await ask(b"right", guest, penalties) == (b"yes", "")
    assert guest.answers == ["welcome"]


async def test_another_is_answered_refused_and_remembered() -> None:
    guest, penalties = Guest(), FailurePenalties()
    assert await ask(b"wrong", guest, penalties) == (b"no", "not you")
    assert guest.answers == ["not you"]
    assert len(penalties) == 1


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.9:4242", ("192.0.2.9", "192.0.2.9")),
        ("[::ffff:192.0.2.9]:4242", ("192.0.2.9", "192.0.2.9")),
        ("[2001:db8::1:2:3:4]:1", ("2001:db8::1:2:3:4", "2001:db8::/64")),
        ("https://relay.example/", (str(PEER), str(PEER))),
    ],
)
def test_the_source_of_a_link(address: str, source: tuple[str, str]) -> None:
    assert source_of(address, PEER) == source
