"""Local port forwarding with asyncssh, both ends.

asyncssh_forward.py server                             prints `port N`
asyncssh_forward.py client SERVER_PORT TARGET_PORT     prints `port N`
"""

import asyncio
import sys

import asyncssh


class Server(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return False  # on loopback, for a bench: nobody has to log in

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        return True


async def run_server() -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    listener = await asyncssh.create_server(Server, "127.0.0.1", 0, server_host_keys=[key])
    print("port", listener.get_port(), flush=True)
    await listener.wait_closed()


async def run_client(server_port: int, target_port: int) -> None:
    async with asyncssh.connect(
        "127.0.0.1", server_port, known_hosts=None, username="bench", config=None, client_keys=None
    ) as connection:
        listener = await connection.forward_local_port("127.0.0.1", 0, "127.0.0.1", target_port)
        print("port", listener.get_port(), flush=True)
        await listener.wait_closed()


if __name__ == "__main__":
    role, *ports = sys.argv[1:]
    asyncio.run(run_server() if role == "server" else run_client(*map(int, ports)))
