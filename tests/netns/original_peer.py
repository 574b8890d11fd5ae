"""One session of the emulated original, as a process in a namespace.

`python -m tests.netns.original_peer client|server HOST STUN manual OFFER ANSWER`, or `... nostr
RELAY`: the client asks for the echo service and sends through it; the server echoes itself. A
client prints `ok` when its data came back, a server `ready` when it can be asked.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.netns.nat_lab import ECHO_PORT
from tests.support.original import Bytes, Original, OriginalOnNostr
from tests.support.sockets import until

from tunnel_rs.ice.nostr_client import wall_clock
from tunnel_rs.net.paste import read_block, write_block
from tunnel_rs.net.quic_connection import QuicConnection
from tunnel_rs.proto.ice_messages import (
    Answer,
    Offer,
    Request,
    decode_answer,
    decode_offer,
    decode_request,
    encode,
)
from tunnel_rs.proto.manual_text import BlockKind, encode_block
from tunnel_rs.proto.nostr_events import EventType

SOURCE = f"tcp://127.0.0.1:{ECHO_PORT}"
SESSION = "0123456789abcdef"


async def manual_client(original: Original, offer: Path, answer: Path) -> QuicConnection:
    message = Offer(original.ice.parameters, source=SOURCE)
    write_block(offer, encode_block(BlockKind.OFFER, encode(message)))
    body, _ = await read_block(BlockKind.ANSWER, answer)
    found = decode_answer(body)
    assert found.fingerprint is not None
    return await original.dial(found.ice, found.fingerprint)


async def manual_server(original: Original, offer: Path, answer: Path) -> QuicConnection:
    print("ready", flush=True)
    body, _ = await read_block(BlockKind.OFFER, offer)
    found = decode_offer(body)
    message = Answer(original.ice.parameters, fingerprint=original.certificate.fingerprint)
    write_block(answer, encode_block(BlockKind.ANSWER, encode(message)))
    return await original.accept(found.ice)


async def nostr_client(original: Original, relay: str) -> QuicConnection:
    speaker = OriginalOnNostr(relay, is_server=False)
    async with speaker.relays as relays:
        await relays.wait_subscribed(10)
        request = Request(original.ice.parameters, SESSION, wall_clock(), SOURCE)
        speaker.say(EventType.REQUEST, encode(request))
        offer = decode_offer((await speaker.next()).body)
        assert offer.session_id == SESSION and offer.fingerprint is not None
        speaker.say(EventType.ANSWER, encode(Answer(original.ice.parameters, SESSION)))
        return await original.dial(offer.ice, offer.fingerprint)


async def nostr_server(original: Original, relay: str) -> QuicConnection:
    speaker = OriginalOnNostr(relay, is_server=True)
    async with speaker.relays as relays:
        await relays.wait_subscribed(10)
        print("ready", flush=True)
        request = decode_request((await speaker.next()).body)
        fingerprint = original.certificate.fingerprint
        offer = Offer(original.ice.parameters, fingerprint, request.session_id)
        speaker.say(EventType.OFFER, encode(offer))
        return await original.accept(request.ice)


async def send_and_receive(connection: QuicConnection) -> None:
    stream = await connection.open_stream()
    received = Bytes(stream)
    stream.write(b"\0hello")
    await until(lambda: received.data == b"hello")
    print("ok", flush=True)


async def echo(connection: QuicConnection) -> None:
    stream = await connection.accept_stream()
    received = Bytes(stream)
    while True:
        await until(lambda: len(received.data) > 1 or received.ended)
        if len(received.data) == 1:
            break
        stream.write(bytes(received.data[1:]))
        del received.data[1:]
    stream.write_eof()
    await asyncio.sleep(5)


async def main(role: str, host: str, stun: str, mode: str, carriers: Sequence[str]) -> None:
    ip, _, port = stun.partition(":")
    # Nostr mode turns the roles of ICE round, not those of QUIC.
    controlling = (role == "client") == (mode == "manual")
    is_server = role == "server"
    original = Original(
        controlling=controlling, is_server=is_server, host=host, stun=(ip, int(port))
    )
    await original.ice.gather()
    async with asyncio.timeout(25):
        if mode == "manual":
            meet = manual_server if is_server else manual_client
            connection = await meet(original, Path(carriers[0]), Path(carriers[1]))
        else:
            connection = await (nostr_server if is_server else nostr_client)(original, carriers[0])
        await (echo if is_server else send_and_receive)(connection)
    await original.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5], sys.argv[5:]))
