"""Server side of the auth dialogue: who may come in (spec `tunnel-protocol.md`, "Auth")."""

from collections.abc import Callable

from tunnel_rs.errors import ProtocolError, StreamResetError
from tunnel_rs.forward.dialogue import Dialogue
from tunnel_rs.net.admission import Admission
from tunnel_rs.net.clock import wall_clock
from tunnel_rs.net.link import ByteStream, Link
from tunnel_rs.proto.access import NOT_ACCEPTED, AccessList, Pass
from tunnel_rs.proto.auth import FailurePenalties
from tunnel_rs.proto.messages import AuthResponse, decode_auth_request
from tunnel_rs.reports import Penalties
from tunnel_rs.values import EndpointId


class AuthGate:
    """Judges accepted links. One gate for all links of a server."""

    def __init__(
        self,
        access: AccessList,
        *,
        timeout: float,
        penalties: FailurePenalties | None = None,
        wall: Callable[[], float] = wall_clock,
    ) -> None:
        self.access = access
        """Who may come in from now on; may be replaced at any time."""
        self._wall = wall
        self._admission = Admission(timeout=timeout, penalties=penalties)

    @property
    def penalties(self) -> Penalties:
        """Who has to wait for answers now."""
        return self._admission.penalties

    async def admit(self, link: Link) -> Pass:
        """What the peer may do, once it has shown an accepted token or key. Raises
        `net.admission.RefusedError`."""
        entrant = _Entrant(self, link.peer)
        await self._admission.admit(link, entrant)
        return entrant.held

    def wall(self) -> float:
        return self._wall()


class _Entrant:
    """A peer that has to show a token, unless its key is enough, and nothing else."""

    def __init__(self, gate: AuthGate, peer: EndpointId) -> None:
        self.held: Pass
        self._gate = gate
        self._peer = peer
        self._understood = False
        self._dialogue: Dialogue

    async def judge(self, stream: ByteStream) -> str:
        self._dialogue = Dialogue(stream)
        try:
            request = decode_auth_request(await self._dialogue.receive())
        except (ProtocolError, StreamResetError) as error:
            return str(error)
        self._understood = True
        verdict = self._gate.access.judge(self._peer, request.auth_token, self._gate.wall())
        if isinstance(verdict, str):
            return verdict
        self.held = verdict
        return ""

    def refuse(self, reason: str) -> None:
        told = NOT_ACCEPTED if self._understood else reason
        self._dialogue.finish(AuthResponse(False, told), stop=False)

    def accept(self) -> None:
        self._dialogue.finish(AuthResponse(True), stop=False)
