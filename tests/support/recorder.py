"""A stream receiver that writes down what it is called with."""

from tunnel_rs.net.link import ByteStream, StreamReceiver


class Recorder(StreamReceiver):
    """Keeps data and events. With `consume` it opens the window again at once."""

    def __init__(self, stream: ByteStream, *, consume: bool = True, attach: bool = True) -> None:
        self.stream = stream
        self.consume = consume
        self.data = bytearray()
        self.datagrams: list[bytes] = []
        self.events: list[str] = []
        self.lost: list[Exception | None] = []
        if attach:
            stream.set_receiver(self)

    def data_received(self, data: bytes) -> None:
        self.data += data
        if self.consume:
            self.stream.consumed(len(data))

    def eof_received(self) -> None:
        self.events.append("eof")

    def reset_received(self, code: int) -> None:
        self.events.append(f"reset {code}")

    def stop_received(self, code: int) -> None:
        self.events.append(f"stop {code}")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def datagrams_received(self, payloads: list[bytes]) -> None:
        self.datagrams += payloads

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)
