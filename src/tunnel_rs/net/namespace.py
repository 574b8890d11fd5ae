"""A VPN for one command: a network namespace of its own, made without privileges (Linux).

`Namespace` starts the process inside it (`net.namespace_agent`) and stands for the host: what a
VPN client would change on this machine it changes in there.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from tunnel_rs.errors import LocalError
from tunnel_rs.net.host_network import (
    Address,
    DeviceConfig,
    ForwardingConfig,
    RouteConfig,
)
from tunnel_rs.net.namespace_agent import MAX_MESSAGE
from tunnel_rs.net.threads import in_thread
from tunnel_rs.net.tun_linux import LinuxTun

ANSWER_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0

_EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}


class Namespace:
    """See `net.host_network.HostNetwork`. `open` makes it, `undo` ends it."""

    mark: int | None = None
    has_ipv6 = True

    def __init__(self, process: "subprocess.Popen[bytes]", end: socket.socket) -> None:
        self._process = process
        self._end = end
        self._device: DeviceConfig | None = None
        self._command: Sequence[str] = ()
        self.runs = False
        """Whether the command has been started."""

    @classmethod
    async def open(cls, command: Sequence[str]) -> "tuple[Namespace, LinuxTun]":
        """A namespace in which `command` will run once there are routes, and the TUN device in
        it. Raises LocalError."""
        if sys.platform != "linux":
            raise LocalError("exec needs network namespaces, which only Linux has")
        namespace = cls(*await in_thread(_start_agent))
        try:
            namespace._command = command
            return namespace, await namespace._receive_device()
        except BaseException:
            await namespace.undo()
            raise

    async def _receive_device(self) -> LinuxTun:
        self._end.settimeout(ANSWER_TIMEOUT)
        data, fds, _, _ = await in_thread(lambda: socket.recv_fds(self._end, MAX_MESSAGE, 1))
        message = _decode(data)
        if not fds:
            raise LocalError(str(message.get("error")))
        os.set_blocking(fds[0], False)
        return LinuxTun(fds[0], str(message["name"]))

    async def wait(self) -> int:
        """The exit status of the command, 128 + the signal that ended it."""
        return await in_thread(self._process.wait)

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send the command a signal."""
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    # HostNetwork

    async def clean(self, device: str | None, *, client: bool) -> None:
        """Namespaces leave nothing behind."""

    async def set_device(self, device: str, config: DeviceConfig) -> None:
        self._device = config

    async def set_routes(self, device: str, config: RouteConfig) -> None:
        """The VPN is the only way out: everything is routed into it."""
        assert self._device is not None, "the device is set up first"
        versions = {address.version for address in self._device.addresses}
        message = {
            "addresses": [str(address) for address in self._device.addresses],
            "mtu": self._device.mtu,
            "routes": [_EVERYTHING[version] for version in sorted(versions)],
            "resolvers": [str(address) for address in config.resolvers],
            "domains": list(config.domains),
        }
        answer = await self._ask({"device": message})
        if answer.get("error") is not None:
            raise LocalError(str(answer["error"]))
        if not self.runs:
            self.runs = True
            self._end.send(json.dumps({"run": list(self._command)}).encode())

    async def exclude(self, address: Address) -> None:
        """The tunnel itself is outside of the namespace."""

    async def set_forwarding(self, device: str, config: ForwardingConfig) -> None:
        raise LocalError("a server cannot run in a namespace")

    async def undo(self) -> None:
        """End the command, if it still runs, and the namespace with it."""
        if self._process.poll() is None and self.runs:
            self.terminate()
        self._end.close()  # which ends the agent, too
        if not await in_thread(lambda: _ended(self._process, STOP_TIMEOUT)):
            self._process.kill()
            await in_thread(self._process.wait)

    async def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            self._end.send(json.dumps(message).encode())
            return _decode(await in_thread(lambda: self._end.recv(MAX_MESSAGE)))
        except OSError:
            raise LocalError("the command's namespace has gone") from None


def _start_agent() -> "tuple[subprocess.Popen[bytes], socket.socket]":
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tunnel_rs.net.namespace_agent", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
        )
    return process, ours


def _decode(data: bytes) -> dict[str, Any]:
    if not data:
        raise LocalError("the process in the namespace ended before it was set up")
    message: dict[str, Any] = json.loads(data)
    return message


def _ended(process: "subprocess.Popen[bytes]", timeout: float) -> bool:
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        return False
    return True
