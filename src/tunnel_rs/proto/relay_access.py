"""Who may use a relay (spec `relay.md` section 5): the decision, without the asking.

It is made after the client has proved its EndpointId.
"""

import hmac
from dataclasses import dataclass
from enum import Enum

from tunnel_rs.errors import ConfigError
from tunnel_rs.values import EndpointId, Secret

NOT_AUTHORIZED = "not authorized"
"""What every refused client is told, whatever the reason."""

_MAX_LISTED = 1_000_000


class Decision(Enum):
    ALLOW = "allow"
    DENY = "deny"
    ASK = "ask"
    """An HTTP service has to be asked: see `AccessService`."""


@dataclass(frozen=True, slots=True)
class Everyone:
    """Whoever proves any EndpointId may use the relay."""


@dataclass(frozen=True, slots=True)
class AllowList:
    """Only these endpoints."""

    endpoint_ids: frozenset[EndpointId]


@dataclass(frozen=True, slots=True)
class DenyList:
    """All but these endpoints."""

    endpoint_ids: frozenset[EndpointId]


@dataclass(frozen=True, slots=True)
class SharedToken:
    """Whoever presents one of these tokens."""

    tokens: tuple[Secret[str], ...]


@dataclass(frozen=True, slots=True)
class AccessService:
    """An HTTP service decides: POST to `url`; allowed by status 200 with the body `true`."""

    url: str
    bearer_token: Secret[str] | None = None

    def headers(self, endpoint_id: EndpointId) -> dict[str, str]:
        """Request headers. iroh-relay sends the first of the two names and documents the second."""
        headers = {"X-Iroh-NodeId": str(endpoint_id), "X-Iroh-Endpoint-Id": str(endpoint_id)}
        if self.bearer_token is not None:
            headers["Authorization"] = f"Bearer {self.bearer_token.reveal()}"
        return headers

    @staticmethod
    def allows(status: int, body: bytes) -> bool:
        return status == 200 and body == b"true"


AccessPolicy = Everyone | AllowList | DenyList | SharedToken | AccessService


def decide(policy: AccessPolicy, endpoint_id: EndpointId, token: Secret[str] | None) -> Decision:
    """Judge a client that has proved `endpoint_id` and presented `token`."""
    if isinstance(policy, AccessService):
        return Decision.ASK
    if isinstance(policy, Everyone):
        allowed = True
    elif isinstance(policy, AllowList):
        allowed = endpoint_id in policy.endpoint_ids
    elif isinstance(policy, DenyList):
        allowed = endpoint_id not in policy.endpoint_ids
    else:
        allowed = token is not None and _is_one_of(token, policy.tokens)
    return Decision.ALLOW if allowed else Decision.DENY


def _is_one_of(candidate: Secret[str], tokens: tuple[Secret[str], ...]) -> bool:
    """Compares with every token, each in constant time, so that the delay tells nothing."""
    given, found = candidate.reveal().encode("utf-8", "surrogatepass"), False
    for token in tokens:
        found |= hmac.compare_digest(given, token.reveal().encode("utf-8", "surrogatepass"))
    return found


def parse_id_list(text: str, name: str) -> frozenset[EndpointId]:
    """Read a file of EndpointIds: one a line, blank lines and `#` comments ignored.

    Raises ConfigError that names `name`, the line and the reason.
    """
    found = set()
    for number, line in enumerate(text.splitlines(), 1):
        entry = line.partition("#")[0].strip()
        if not entry:
            continue
        try:
            found.add(EndpointId.parse(entry))
        except ValueError as error:
            raise ConfigError(f"{name}, line {number}: {error}") from None
        if len(found) > _MAX_LISTED:
            raise ConfigError(f"{name} lists more than {_MAX_LISTED:,} endpoints")
    return frozenset(found)
