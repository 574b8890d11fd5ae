"""Several paths of one connection: what aioquic keeps once per connection, kept once per path.

A path has its own packet numbers, loss recovery, congestion window, connection ids and datagram
size (spec `multipath.md` sections 3 and 8). One path at a time is *current*: its state is in the
engine's attributes, where aioquic's code and ours work on it without knowing of others. The state
of the others is put away; `_enter` exchanges them. Between calls the current path is the *data
path*, on which our data is sent, so that a connection with one path pays nothing.
"""

from collections.abc import Callable
from typing import Any, ClassVar

from aioquic import tls
from aioquic.quic import events
from aioquic.quic.connection import QuicConnectionId, QuicNetworkPath
from aioquic.quic.recovery import QuicPacketRecovery, QuicPacketSpace

from tunnel_rs.proto import varint
from tunnel_rs.proto.engine import CONNECTION_ID_LENGTH, DATAGRAM_SIZE, Address, Engine
from tunnel_rs.proto.mtu_discovery import MtuDiscovery
from tunnel_rs.proto.multipath_frames import FrameType
from tunnel_rs.proto.path_keys import PathKeys, SharedKeys
from tunnel_rs.proto.recovery import Recovery

_ONE_RTT = tls.Epoch.ONE_RTT
_NO_ID = 1 << 62
"""Sequence number that stands for "the peer has not given us an id yet"; above all real ones."""


class Path:
    """One path as the engine sees it, apart from what is exchanged with the engine's attributes.

    It begins as a mere number with connection ids; it is *live* once packets can be sent or
    received on it, and stays so for a while after it was abandoned."""

    __slots__ = (
        "abandon_code",
        "ack_head",
        "bytes_received",
        "challenge_at",
        "challenge_count",
        "challenges",
        "confirmed_at",
        "context",
        "drain_at",
        "heard_at",
        "host_ids",
        "id",
        "idle_at",
        "is_available",
        "keep_alive_at",
        "moves_when_valid",
        "network_paths",
        "opened_at",
        "peer_status",
        "peer_status_sequence",
        "pings",
        "probing_since",
        "recovery",
        "revert_at",
        "rtt",
        "sent_before",
        "space",
        "status_sequence",
    )

    def __init__(self, path_id: int) -> None:
        self.id = path_id
        self.ack_head = varint.encode(FrameType.PATH_ACK) + varint.encode(path_id)
        """How PATH_ACK frames about it begin."""
        self.context: dict[str, Any] = {}
        """The engine's attributes while another path is current."""
        self.network_paths: list[QuicNetworkPath] = []
        """aioquic's list: the address in use first, then at most the one used before."""
        self.host_ids: list[QuicConnectionId] = []
        self.pings: list[int] = []
        self.recovery: Recovery | None = None
        self.space: QuicPacketSpace | None = None
        self.is_available = True
        self.status_sequence = 0
        self.peer_status = True
        self.peer_status_sequence = -1
        self.challenges: dict[bytes, tuple[float, Address]] = {}
        """PATH_CHALLENGEs that wait for their answer: when they were sent, and where to."""
        self.challenge_at: float | None = None
        self.challenge_count = 0
        self.confirmed_at = float("-inf")
        """When the peer last answered a challenge."""
        self.rtt: float | None = None
        self.opened_at = self.heard_at = 0.0
        self.sent_before = 0
        """Bytes we had sent when the path was last looked at to keep it alive."""
        self.keep_alive_at: float | None = None
        self.idle_at: float | None = None
        self.revert_at: float | None = None
        self.probing_since: float | None = None
        """When the first of the present probe timeouts came."""
        self.drain_at: float | None = None
        """When it is forgotten, once it was abandoned."""
        self.abandon_code = 0
        self.moves_when_valid = False
        self.bytes_received = 0

    @property
    def is_abandoned(self) -> bool:
        return self.drain_at is not None

    @property
    def is_open(self) -> bool:
        """It has an address, and may be used."""
        return bool(self.network_paths) and self.drain_at is None

    @property
    def is_validated(self) -> bool:
        return self.is_open and bool(self.network_paths[0].is_validated)

    @property
    def address(self) -> Address:
        address: Address = self.network_paths[0].addr
        return address

    @property
    def answered_at(self) -> float:
        """When the peer last acknowledged something sent on it, or answered a challenge."""
        if self.recovery is None:
            return self.confirmed_at
        return max(self.recovery.answered_at, self.confirmed_at)

    @property
    def probes(self) -> int:
        """Probe timeouts in a row without an answer."""
        return self.recovery.probe_count if self.recovery is not None else 0


class PathContext(Engine):
    """The engine's paths, and which one is current."""

    PER_PATH: ClassVar[tuple[str, ...]] = (
        "_cryptos",
        "_host_cid_seq",
        "_host_cids",
        "_loss",
        "_loss_at",
        "_max_datagram_size",
        "_mtu",
        "_mtu_address",
        "_network_paths",
        "_pacing_at",
        "_packet_number",
        "_peer_cid",
        "_peer_cid_available",
        "_peer_cid_sequence_numbers",
        "_peer_retire_prior_to",
        "_ping_pending",
        "_probe_pending",
        "_recovery",
        "_retire_connection_ids",
        "_space",
        "_spaces",
        "_spin_bit",
        "_spin_highest_pn",
        "host_cid",
    )

    _keys: SharedKeys

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        first = Path(0)
        self._path = self._data_path = first
        self._paths: dict[int, Path] = {0: first}
        """All that are not forgotten, by their ids."""
        self._live: list[Path] = [first]
        """Those that packets are sent or received on."""
        self._path_of_id: dict[bytes, Path] = {}
        """By our connection ids, those of the first path excepted."""
        self._is_multipath = False

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self._keys = SharedKeys.adopt(self._cryptos[_ONE_RTT])
        first = self._path
        first.network_paths = self._network_paths
        first.host_ids = self._host_cids
        first.pings = self._ping_pending
        first.recovery, first.space = self._recovery, self._space

    # Exchanging

    def _enter(self, path: Path) -> None:
        """Make `path` current."""
        left = self._path
        if path is left:
            return
        attributes = self.__dict__
        left.context = {name: attributes[name] for name in self.PER_PATH}
        attributes.update(path.context)
        self._path = path

    def _on_path(self, path: Path, do: Callable[[], None]) -> None:
        """Do something with `path` current, and return to the path that was."""
        before = self._path
        self._enter(path)
        try:
            do()
        finally:
            self._enter(before)

    def _peer_id(self, path: Path) -> QuicConnectionId | None:
        """The peer's connection id that packets on `path` go to; None before it has given any."""
        current = path is self._path
        used: QuicConnectionId = self._peer_cid if current else path.context["_peer_cid"]
        return used if used.cid else None

    # Making paths

    def _new_path(self, path_id: int) -> Path:
        """A path that has nothing but a number yet, and room for connection ids."""
        path = Path(path_id)
        path.context = self._new_context(path)
        self._paths[path_id] = path
        return path

    def _new_context(self, path: Path) -> dict[str, Any]:
        """All of `PER_PATH`; what is costly is None until `_enliven`."""
        return {
            "_cryptos": None,
            "_host_cid_seq": 0,
            "_host_cids": path.host_ids,
            "_loss": None,
            "_loss_at": None,
            "_max_datagram_size": DATAGRAM_SIZE,
            "_mtu": None,
            "_mtu_address": None,
            "_network_paths": path.network_paths,
            "_pacing_at": None,
            "_packet_number": 0,
            "_peer_cid": QuicConnectionId(cid=b"", sequence_number=_NO_ID),
            "_peer_cid_available": [],
            "_peer_cid_sequence_numbers": set(),
            "_peer_retire_prior_to": 0,
            "_ping_pending": path.pings,
            "_probe_pending": False,
            "_recovery": None,
            "_retire_connection_ids": [],
            "_space": None,
            "_spaces": None,
            "_spin_bit": False,
            "_spin_highest_pn": 0,
            "host_cid": b"",
        }

    def _enliven(self, path: Path) -> None:
        """Give `path`, which is not current, all it needs for packets."""
        if path.space is not None:
            return
        space = QuicPacketSpace(is_application_data=True)
        loss = QuicPacketRecovery(
            congestion_control_algorithm=self._configuration.congestion_control_algorithm,
            initial_rtt=self._configuration.initial_rtt,
            max_datagram_size=DATAGRAM_SIZE,
            peer_completed_address_validation=True,
            send_probe=self._send_probe,
            logger=self._logger,
        )
        loss.handshake_confirmed = True
        loss.spaces = [space]
        path.space = space
        path.recovery = Recovery.adopt(
            loss, max_datagram_size=DATAGRAM_SIZE, on_train=self._on_train
        )
        path.context.update(
            _cryptos={**self._cryptos, _ONE_RTT: PathKeys(self._keys, path.id)},
            _loss=loss,
            _mtu=MtuDiscovery(),
            _recovery=path.recovery,
            _space=space,
            _spaces={_ONE_RTT: space},
            host_cid=path.host_ids[0].cid if path.host_ids else b"",
        )

    def _forget_path(self, path: Path) -> None:
        """Drop `path`, which is neither current nor the data path."""
        self._paths.pop(path.id, None)
        if path in self._live:
            self._live.remove(path)
        for known in path.host_ids:
            self._path_of_id.pop(known.cid, None)
            self._events.append(events.ConnectionIdRetired(connection_id=known.cid))

    def _path_of(self, datagram: memoryview) -> Path | None:
        """Whose packet a datagram begins with, by its destination id; a path that was not live
        is made so, as the ids are known to the peer alone. None: nobody's any more."""
        if datagram[0] & 0x80:
            return self._paths.get(0)  # of the handshake, late
        path = self._path_of_id.get(bytes(datagram[1 : 1 + CONNECTION_ID_LENGTH]))
        if path is None:
            return self._paths.get(0, self._path)
        self._enliven(path)
        return path
