"""Which options there are for each role: a table for each program, and mode, that has files."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from tunnel_rs.config import ice_schema, schema, vpn_schema
from tunnel_rs.config.ice_schema import Mode
from tunnel_rs.config.option import Exclusion, Option, Refused, Role


@dataclass(frozen=True)
class Table:
    """The options of one program in one mode."""

    program: str
    mode: str
    """What its files say as `mode`."""

    options: Mapping[Role, tuple[Option[object], ...]]
    exclusions: tuple[Exclusion, ...]
    refused: tuple[Refused, ...]

    def command(self, role: Role) -> str:
        """The command that runs as `role`."""
        return f"{self.program} {'server' if role.is_server else 'client'}"

    @cached_property
    def sections(self) -> frozenset[str]:
        """The TOML tables that its files may have, as dotted paths."""
        keys = [key for options in self.options.values() for o in options for key in o.keys]
        paths = [key.split(".") for key in keys]
        return frozenset(".".join(path[:depth]) for path in paths for depth in range(1, len(path)))


FORWARD = Table(
    "tunnel-rs",
    schema.MODE,
    {role: schema.options_for(role) for role in (Role.SERVER, Role.CLIENT)},
    schema.EXCLUSIONS,
    schema.REFUSED,
)
VPN = Table(
    "tunnel-rs-vpn",
    schema.MODE,
    {Role.VPN_SERVER: vpn_schema.SERVER_OPTIONS, Role.VPN_CLIENT: vpn_schema.CLIENT_OPTIONS},
    vpn_schema.EXCLUSIONS,
    schema.REFUSED,
)


def _ice(mode: Mode) -> Table:
    options = {role: ice_schema.options_for(role, mode) for role in (Role.SERVER, Role.CLIENT)}
    refused = ice_schema.refused(mode)
    return Table("tunnel-rs-ice", mode, options, ice_schema.EXCLUSIONS, refused)


MANUAL, NOSTR = _ice(Mode.MANUAL), _ice(Mode.NOSTR)

TABLES = (FORWARD, VPN, MANUAL, NOSTR)


def table_for(role: Role, mode: str = schema.MODE) -> Table:
    """The table of the program that has `role` in files of `mode`."""
    return next(table for table in TABLES if role in table.options and table.mode == mode)


def options_for(role: Role, mode: str = schema.MODE) -> tuple[Option[object], ...]:
    """The options one side understands, in the order of its table."""
    return table_for(role, mode).options[role]
