"""The process inside a network namespace of its own, and the command that runs there (Linux).

Run as `python -m tunnel_rs.net.namespace_agent FD`; `net.namespace` is the other end of the socket
FD. It enters new user, network and mount namespaces, which needs no privileges, makes a TUN device
and sends its descriptor; sets up addresses when told, also again; runs one command, as the user who
called and with no capability; and ends as the command does.

Messages are JSON, one a packet. In: `{"device": {...}}`, answered by `{"error": null | text}`;
`{"run": [...]}`. Out: `{"name": device}` with the descriptor, or `{"error": text}`.
"""

import array
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_interface, ip_network
from typing import Any

from tunnel_rs.errors import LocalError
from tunnel_rs.net.tun_linux import PATH, create

MAX_MESSAGE = 65_536

_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_PR_SET_SECUREBITS, _SECBIT_NOROOT, _SECBIT_NOROOT_LOCKED = 28, 1, 2
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_SWITCHES = (
    "user.max_user_namespaces, kernel.unprivileged_userns_clone and "
    "kernel.apparmor_restrict_unprivileged_userns"
)
"""Settings by which distributions keep users from it."""

_OPEN_TO_ALL = f"let users open it: `chmod 666 {PATH}` as root, as most distributions have it"


def enter_namespaces() -> None:
    """Leave the namespaces of the caller. Raises LocalError."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET | _CLONE_NEWNS):
        raise LocalError(
            f"this system does not let users make namespaces ({os.strerror(ctypes.get_errno())}); "
            f"see {_SWITCHES}"
        )
    try:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    except OSError as error:
        raise LocalError(
            f"cannot set up a user namespace: {error.strerror}; see {_SWITCHES}"
        ) from None
    _mount(None, "/", _MS_REC | _MS_PRIVATE)
    # What we start later gets no capability of the namespace, even when root has called us.
    if libc.prctl(_PR_SET_SECUREBITS, _SECBIT_NOROOT | _SECBIT_NOROOT_LOCKED, 0, 0, 0):
        raise LocalError(f"cannot give up privileges: {os.strerror(ctypes.get_errno())}")
    with suppress(OSError):  # so that `ping` works without one
        with open("/proc/sys/net/ipv4/ping_group_range", "w") as file:
            file.write(f"{gid} {gid}")


def _mount(source: str | None, target: str, flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    raw = None if source is None else source.encode()
    if libc.mount(raw, target.encode(), None, ctypes.c_ulong(flags), None):
        raise LocalError(f"cannot mount {target}: {os.strerror(ctypes.get_errno())}")


class Agent:
    """Serves the socket, and waits for the command meanwhile."""

    def __init__(self, parent: socket.socket) -> None:
        self._parent = parent
        self._device = ""
        self._command: subprocess.Popen[bytes] | None = None
        self._has_resolvers = False

    def serve(self) -> int:
        """The exit status of the command, or 1 when the other end has gone before."""
        try:
            enter_namespaces()
            fd, self._device = create(remedies=_OPEN_TO_ALL)
        except LocalError as error:
            self._send({"error": str(error)})
            return 1
        self._send({"name": self._device}, fd)
        os.close(fd)
        return self._until_the_end()

    def _until_the_end(self) -> int:
        child = _child_signal()
        while True:
            ready, _, _ = select.select([self._parent, child], [], [])
            if child in ready:
                child.recv(1024)
                if self._command is not None and (status := self._command.poll()) is not None:
                    return status if status >= 0 else 128 - status
            if self._parent in ready and not self._take():
                return self._abandoned()

    def _take(self) -> bool:
        """One message; False when the other end has gone."""
        data = self._parent.recv(MAX_MESSAGE)
        if not data:
            return False
        message = json.loads(data)
        if "device" in message:
            self._set_device(message["device"])
        if "run" in message:
            self._run(message["run"])
        return True

    def _abandoned(self) -> int:
        if self._command is not None:
            self._command.terminate()
        return 1

    def _send(self, message: Mapping[str, object], fd: int | None = None) -> None:
        data = json.dumps(message).encode()
        control = [] if fd is None else [_rights(fd)]
        self._parent.sendmsg([data], control)

    def _set_device(self, wanted: Mapping[str, Any]) -> None:
        try:
            configure(self._device, wanted)
            if wanted["resolvers"]:
                self._use_resolvers(wanted["resolvers"], wanted["domains"])
        except (LocalError, OSError, ValueError) as error:
            self._send({"error": str(error)})
        else:
            self._send({"error": None})

    def _use_resolvers(self, resolvers: Sequence[str], domains: Sequence[str]) -> None:
        """Only seen inside: a file of our own over the system's."""
        if self._has_resolvers:
            return
        lines = [f"nameserver {address}" for address in resolvers]
        if domains:
            lines.append(f"search {' '.join(domains)}")
        with tempfile.NamedTemporaryFile("w", prefix="tunnel-rs-vpn-") as file:
            os.fchmod(file.fileno(), 0o644)
            file.write("\n".join(lines) + "\n")
            file.flush()
            _mount(file.name, os.path.realpath("/etc/resolv.conf"), _MS_BIND)
        self._has_resolvers = True

    def _run(self, command: Sequence[str]) -> None:
        try:
            self._command = subprocess.Popen(command)
        except OSError as error:
            print(f"{command[0]}: {error.strerror}", file=sys.stderr)
            found = not isinstance(error, FileNotFoundError)
            sys.exit(_NOT_EXECUTABLE if found else _NOT_FOUND)
        command_of = self._command
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda received, _: command_of.send_signal(received))


def configure(device: str, wanted: Mapping[str, Any]) -> None:
    """Addresses, MTU and routes of the device, in the namespace we are in."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        with IPRoute() as ip:
            ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")
            index = ip.link_lookup(ifname=device)[0]
            ip.link("set", index=index, mtu=wanted["mtu"], state="up")
            ip.flush_addr(index=index)
            for text in wanted["addresses"]:
                address = ip_interface(text)
                ip.addr(
                    "replace",
                    index=index,
                    address=str(address.ip),
                    prefixlen=address.network.prefixlen,
                    flags=0x02 if address.version == 6 else 0,  # IFA_F_NODAD
                )
            for text in wanted["routes"]:
                family = socket.AF_INET6 if ip_network(text).version == 6 else socket.AF_INET
                ip.route("replace", family=family, dst=text, oif=index)
    except NetlinkError as error:
        raise LocalError(f"the kernel refused an address or route: {error.args[-1]}") from None


def _rights(fd: int) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]).tobytes()


def _child_signal() -> socket.socket:
    """Readable when a child has ended."""
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # A Ctrl-C reaches the command by itself, which decides what it means.
    signal.signal(signal.SIGINT, lambda *_: None)
    reader_and_writer.append((reader, writer))
    return reader


reader_and_writer: list[tuple[socket.socket, socket.socket]] = []
"""Kept open as long as the process lives."""


def main(arguments: Sequence[str]) -> int:
    with socket.socket(fileno=int(arguments[0])) as parent:
        os.set_inheritable(parent.fileno(), False)
        return Agent(parent).serve()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
