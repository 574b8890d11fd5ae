"""The forwarder one would write with `aioquic.asyncio` on an afternoon: the line to beat.

    stock_aioquic.py server TARGET_PORT            prints `port N`
    stock_aioquic.py client SERVER_PORT            prints `port N`

One QUIC connection, one stream for each TCP connection, everything by the library's defaults.
"""

import asyncio
import datetime
import ssl
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.server import serve
from aioquic.quic.configuration import QuicConfiguration
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

ALPN = ["bench-forward"]
CHUNK = 65536
_tasks: set[asyncio.Task[None]] = set()


def spawn(coroutine: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(coroutine)
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


async def join(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    far_reader: asyncio.StreamReader,
    far_writer: asyncio.StreamWriter,
) -> None:
    await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer))
    writer.close()
    far_writer.close()


async def run_server(target_port: int) -> None:
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await join(reader, writer, *await asyncio.open_connection("127.0.0.1", target_port))

    configuration = QuicConfiguration(is_client=False, alpn_protocols=ALPN)
    with tempfile.TemporaryDirectory() as folder:
        configuration.load_cert_chain(*certificate(Path(folder)))
    server = await serve(
        "127.0.0.1",
        0,
        configuration=configuration,
        stream_handler=lambda reader, writer: spawn(forward(reader, writer)),
    )
    assert server._transport is not None
    print("port", server._transport.get_extra_info("sockname")[1], flush=True)
    await asyncio.Event().wait()


async def run_client(server_port: int) -> None:
    configuration = QuicConfiguration(alpn_protocols=ALPN, verify_mode=ssl.CERT_NONE)
    async with connect("127.0.0.1", server_port, configuration=configuration) as connection:

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await join(reader, writer, *await connection.create_stream())

        listener = await asyncio.start_server(forward, "127.0.0.1", 0)
        print("port", listener.sockets[0].getsockname()[1], flush=True)
        await listener.serve_forever()


def certificate(folder: Path) -> tuple[Path, Path]:
    """A throw-away self-signed certificate and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


if __name__ == "__main__":
    role, port = sys.argv[1], int(sys.argv[2])
    asyncio.run(run_server(port) if role == "server" else run_client(port))
