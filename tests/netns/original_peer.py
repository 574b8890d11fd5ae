"""One manual session of the emulated original, as a process in a namespace.

`python -m tests.netns.original_peer client|server HOST OFFER ANSWER STUN`: the client asks for the
echo service and sends through it; the server echoes itself. Prints `ok` when data came back.
"""

import asyncio
import sys
from pathlib import Path

from tests.netns.nat_lab import ECHO_PORT
from tests.support.original import Bytes, Original
from tests.support.sockets import until

from tunnel_rs.net.paste import read_block, write_block
from tunnel_rs.proto.ice_messages import Answer, Offer, decode_answer, decode_offer, encode
from tunnel_rs.proto.manual_text import BlockKind, encode_block


async def client(original: Original, offer: Path, answer: Path) -> None:
    message = Offer(original.ice.parameters, source=f"tcp://127.0.0.1:{ECHO_PORT}")
    write_block(offer, encode_block(BlockKind.OFFER, encode(message)))
    body, _ = await read_block(BlockKind.ANSWER, answer)
    found = decode_answer(body)
    assert found.fingerprint is not None
    connection = await original.dial(found.ice, found.fingerprint)
    stream = await connection.open_stream()
    received = Bytes(stream)
    stream.write(b"\0hello")
    await until(lambda: received.data == b"hello")
    print("ok", flush=True)


async def server(original: Original, offer: Path, answer: Path) -> None:
    body, _ = await read_block(BlockKind.OFFER, offer)
    found = decode_offer(body)
    message = Answer(original.ice.parameters, fingerprint=original.certificate.fingerprint)
    write_block(answer, encode_block(BlockKind.ANSWER, encode(message)))
    connection = await original.accept(found.ice)
    stream = await connection.accept_stream()
    received = Bytes(stream)
    while not received.ended:
        await asyncio.sleep(0.01)
        if len(received.data) > 1:
            stream.write(bytes(received.data[1:]))
            received.data[1:] = b""
    stream.write_eof()
    await asyncio.sleep(5)


async def main(role: str, host: str, offer: str, answer: str, stun: str) -> None:
    ip, _, port = stun.partition(":")
    is_client = role == "client"
    original = Original(
        controlling=is_client, is_server=not is_client, host=host, stun=(ip, int(port))
    )
    await original.ice.gather()
    async with asyncio.timeout(25):
        await (client if is_client else server)(original, Path(offer), Path(answer))
    await original.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
