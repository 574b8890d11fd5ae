"""What there is to know about one option, and about options that do not go together."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

from tunnel_rs.config.kinds import Kind

T_co = TypeVar("T_co", covariant=True)


class Role(StrEnum):
    """Which side a file or a command is for; the values of `role` in a file."""

    SERVER = "server"
    CLIENT = "client"
    VPN_SERVER = "vpnserver"
    VPN_CLIENT = "vpnclient"

    @property
    def is_server(self) -> bool:
        return self in (Role.SERVER, Role.VPN_SERVER)

    @property
    def file_name(self) -> str:
        """Of its configuration file in the default place."""
        side = "server" if self.is_server else "client"
        return f"{side}.toml" if self == side else f"vpn_{side}.toml"


SERVER = frozenset({Role.SERVER})
CLIENT = frozenset({Role.CLIENT})
BOTH = SERVER | CLIENT
VPN_SERVER = frozenset({Role.VPN_SERVER})
VPN_CLIENT = frozenset({Role.VPN_CLIENT})
VPN_BOTH = VPN_SERVER | VPN_CLIENT


@dataclass(frozen=True, slots=True)
class Option(Generic[T_co]):
    """One thing that can be configured.

    `key` is the path in a TOML file, `flags` its spellings on the command line, `variable` the
    environment variable; each is left out where the option cannot be given. A `hidden` option
    works but is not shown by `--help`.
    """

    name: str
    kind: Kind[T_co]
    default: T_co
    roles: frozenset[Role]
    doc: str
    key: str | None = None
    aliases: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    metavar: str = ""
    variable: str | None = None
    hidden: bool = False

    @property
    def keys(self) -> tuple[str, ...]:
        """Every path that sets this option in a file."""
        return ((self.key,) if self.key else ()) + self.aliases

    @property
    def flag(self) -> str:
        """The long spelling on the command line."""
        return self.flags[-1]


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Two options that say the same thing in two ways.

    Given by one source they are an error, unless `together_on_command_line`; given by two sources
    the one of higher rank is used and the other is dropped.
    """

    first: Option[object]
    second: Option[object]
    together_on_command_line: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A key that a file may not hold although there is such an option, and why."""

    reason: str
    key: str
