"""Which options there are for each role: one table for each program."""

from collections.abc import Mapping
from dataclasses import dataclass

from tunnel_rs.config import schema, vpn_schema
from tunnel_rs.config.option import Exclusion, Option, Refused, Role


@dataclass(frozen=True, slots=True)
class Table:
    """The options of one program."""

    mode: str
    """The only `mode` of its files."""

    options: Mapping[Role, tuple[Option[object], ...]]
    exclusions: tuple[Exclusion, ...]
    refused: tuple[Refused, ...]


FORWARD = Table(
    schema.MODE,
    {role: schema.options_for(role) for role in (Role.SERVER, Role.CLIENT)},
    schema.EXCLUSIONS,
    schema.REFUSED,
)
VPN = Table(
    schema.MODE,
    {Role.VPN_SERVER: vpn_schema.SERVER_OPTIONS, Role.VPN_CLIENT: vpn_schema.CLIENT_OPTIONS},
    vpn_schema.EXCLUSIONS,
    schema.REFUSED,
)


def table_for(role: Role) -> Table:
    """The table of the program that `role` belongs to."""
    return next(table for table in (FORWARD, VPN) if role in table.options)


def options_for(role: Role) -> tuple[Option[object], ...]:
    """The options one side understands, in the order of its table."""
    return table_for(role).options[role]
