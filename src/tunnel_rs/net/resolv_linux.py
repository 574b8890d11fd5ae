"""Which resolvers Linux asks while a VPN client runs.

By systemd-resolved where it runs (per link: the setting goes with the device), else by
`resolvconf`, else by rewriting /etc/resolv.conf, whose text is kept beside it and put back in the
end, or at the next start when the process was killed.
"""

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tunnel_rs.errors import LocalError
from tunnel_rs.net import commands
from tunnel_rs.net.host_network import Address

RESOLVED = Path("/run/systemd/resolve")
RESOLV_CONF = Path("/etc/resolv.conf")
HEAD = "# Written by tunnel-rs-vpn while its tunnel is up; the text before is in"


class Resolvers:
    """The change to the system's resolvers, and its undoing."""

    def __init__(
        self,
        *,
        run: commands.Run = commands.run,
        resolved: Path = RESOLVED,
        resolv_conf: Path = RESOLV_CONF,
    ) -> None:
        self._run = run
        self._resolved = resolved
        self._file = resolv_conf
        self._device = ""
        self._way = ""
        self._used: tuple[tuple[Address, ...], tuple[str, ...]] = ((), ())

    @property
    def _kept(self) -> Path:
        """Where the text before is kept. Beside it, so that it survives a reboot as it does."""
        return self._file.with_name(self._file.name + ".before-tunnel-rs-vpn")

    async def use(self, device: str, addresses: Sequence[Address], domains: Sequence[str]) -> None:
        """Ask `addresses` for names in `domains`, or for all. None: as it was before. Raises
        LocalError."""
        wanted = tuple(addresses), tuple(domains)
        if wanted == self._used:
            return
        await self.restore()
        if not addresses:
            return
        self._device = device
        if self._resolved.is_dir() and shutil.which("resolvectl"):
            self._way = "resolvectl"
            await self._use_resolved(device, addresses, domains)
        elif shutil.which("resolvconf"):
            self._way = "resolvconf"
            await self._run(("resolvconf", "-a", device), _text(addresses, domains))
        else:
            self._way = "file"
            self._rewrite(_text(addresses, domains))
        self._used = wanted

    async def restore(self) -> None:
        """As it was before. Raises LocalError."""
        way, self._way, self._used = self._way, "", ((), ())
        if way == "resolvectl":
            await self._run(("resolvectl", "revert", self._device), "")
        elif way == "resolvconf":
            await self._run(("resolvconf", "-d", self._device), "")
        elif way == "file":
            self.clean()

    def clean(self) -> None:
        """Put back a text that was kept, unless somebody else has written the file since."""
        with suppress(OSError):
            kept = self._kept.read_text()
            if self._file.read_text().startswith(HEAD):
                self._file.write_text(kept)
            self._kept.unlink()

    async def _use_resolved(
        self, device: str, addresses: Sequence[Address], domains: Sequence[str]
    ) -> None:
        await self._run(("resolvectl", "dns", device, *map(str, addresses)), "")
        # `~.`: all names; else only names in these domains are asked there.
        await self._run(("resolvectl", "domain", device, *(domains or ("~.",))), "")
        await self._run(("resolvectl", "default-route", device, "no" if domains else "yes"), "")

    def _rewrite(self, text: str) -> None:
        """In place: the file may be a mount, which cannot be replaced. The text before is kept
        first, whole and durable."""
        try:
            before = self._file.read_text() if self._file.exists() else ""
            temporary = self._kept.with_name(self._kept.name + ".tmp")
            temporary.write_text(before)
            os.replace(temporary, self._kept)
            self._file.write_text(f"{HEAD} {self._kept}.\n{text}")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not text"
            raise LocalError(
                f"cannot write {self._file}: {reason}; set accept_dns = false to leave it alone"
            ) from None


def _text(addresses: Sequence[Address], domains: Sequence[str]) -> str:
    lines = [f"nameserver {address}" for address in addresses]
    if domains:
        lines.append(f"search {' '.join(domains)}")
    return "\n".join(lines) + "\n"
