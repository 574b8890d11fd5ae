"""Server side of the auth dialogue: who may come in (spec `tunnel-protocol.md`, "Auth")."""

from collections.abc import Callable

from tunnel_rs.errors import ProtocolError, StreamResetError
from tunnel_rs.forward.dialogue import Dialogue
from tunnel_rs.net.admission import Admission
from tunnel_rs.net.link import ByteStream, Link
from tunnel_rs.proto.auth import FailurePenalties, token_accepted
from tunnel_rs.proto.messages import AuthResponse, decode_auth_request
from tunnel_rs.values import Secret

Tokens = Callable[[], tuple[Secret[str], ...]]


class AuthGate:
    """Judges accepted links. One gate for all links of a server."""

    def __init__(
        self, tokens: Tokens, *, timeout: float, penalties: FailurePenalties | None = None
    ) -> None:
        self._tokens = tokens
        self._admission = Admission(timeout=timeout, penalties=penalties)

    async def admit(self, link: Link) -> None:
        """Return when the peer has shown an accepted token. Raises `net.admission.RefusedError`."""
        await self._admission.admit(link, _TokenBearer(self._tokens))


class _TokenBearer:
    """A peer that has to show a token, and nothing else."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._dialogue: Dialogue

    async def judge(self, stream: ByteStream) -> str:
        self._dialogue = Dialogue(stream)
        try:
            request = decode_auth_request(await self._dialogue.receive())
        except (ProtocolError, StreamResetError) as error:
            return str(error)
        if token_accepted(request.auth_token, self._tokens()):
            return ""
        return "the token is not accepted"

    def refuse(self, reason: str) -> None:
        self._dialogue.finish(AuthResponse(False, reason), stop=False)

    def accept(self) -> None:
        self._dialogue.finish(AuthResponse(True), stop=False)
