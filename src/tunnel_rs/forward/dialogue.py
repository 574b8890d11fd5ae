"""The messages of the tunnel protocol at the head of a stream, one each way.

Source streams carry payload after the dialogue: `hand_over` passes on what came too early.
Auth streams carry nothing more: `finish` ends them.
"""

from tunnel_rs.net.exchange import STREAM_DONE, Exchange
from tunnel_rs.proto.messages import Message, encode

__all__ = ["AUTH_FAILED", "AUTH_TIMEOUT", "DONE", "STREAM_DONE", "Dialogue"]

DONE = 0
AUTH_FAILED = 1
AUTH_TIMEOUT = 2
"""Application close codes of a link, sent with the reasons `done`, `auth_failed` and
`auth_timeout` (spec `tunnel-protocol.md`, "Auth")."""


class Dialogue(Exchange):
    """An `Exchange` of the messages in `proto.messages`."""

    datagrams = False
    """Whether client and server have agreed on datagrams beside the stream."""

    def send(self, message: Message) -> None:
        self.send_encoded(encode(message))

    def finish(self, message: Message | None = None, *, stop: bool = True) -> None:
        """See `finish_encoded`."""
        self.finish_encoded(b"" if message is None else encode(message), stop=stop)
