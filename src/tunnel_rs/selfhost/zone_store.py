"""The signed packets a discovery server knows, newest of each endpoint, in SQLite.

All calls are short and synchronous (tens of microseconds; packets are at most 1 kB). Writes are
gathered in a transaction that the owner commits: see `pending`.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tunnel_rs.errors import LocalError, ProtocolError
from tunnel_rs.proto.pkarr import SignedPacket
from tunnel_rs.values import EndpointId

FILE_NAME = "records.sqlite3"

_APPLICATION_ID = 0x74756E6E
_SCHEMA_VERSION = 1
_MICROSECONDS = 1_000_000
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS packet (
        endpoint_id BLOB PRIMARY KEY,
        payload BLOB NOT NULL,
        dated INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS packet_by_date ON packet (dated);
"""


class ZoneStore:
    """Opens or makes the store. `clock` gives microseconds since 1970.

    A packet is as old as its own timestamp says, but never younger than its arrival: one dated in
    the future does not stay for ever.
    """

    def __init__(
        self, directory: Path | None, clock: Callable[[], int], *, max_records: int
    ) -> None:
        """`directory` None: in memory. Raises LocalError."""
        self._clock = clock
        self._max_records = max_records
        self._place = ":memory:" if directory is None else str(directory / FILE_NAME)
        self.pending = 0
        """Packets put since the last commit."""
        try:
            if directory is not None:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = sqlite3.connect(self._place, timeout=1.0, isolation_level="IMMEDIATE")
        except (OSError, sqlite3.Error) as error:
            raise LocalError(f"record store {self._place}: {error}") from None
        try:
            self._prepare()
        except (sqlite3.Error, LocalError) as error:
            self._database.close()
            raise self._opening_failed(error) from None

    def _prepare(self) -> None:
        # Exclusive: two servers must not both answer from one store, each with its own view.
        for pragma in (
            "locking_mode = EXCLUSIVE",
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "secure_delete = OFF",
        ):
            self._database.execute(f"PRAGMA {pragma}").close()
        version = self._one("PRAGMA user_version")
        if version not in (0, _SCHEMA_VERSION) or (
            version and self._one("PRAGMA application_id") != _APPLICATION_ID
        ):
            raise LocalError(f"record store {self._place}: made by another program or version")
        self._database.executescript(_SCHEMA)
        self._database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}").close()
        self._database.execute(f"PRAGMA application_id = {_APPLICATION_ID}").close()
        self._count = self._one("SELECT count(*) FROM packet")

    def _opening_failed(self, error: Exception) -> LocalError:
        if isinstance(error, LocalError):
            return error
        if "locked" in str(error):
            return LocalError(f"record store {self._place}: in use by another dns-server")
        return LocalError(f"record store {self._place}: {error}; move it away to start anew")

    def _one(self, statement: str, *arguments: object) -> int:
        with closing(self._database.execute(statement, arguments)) as cursor:
            return int(cursor.fetchone()[0])

    def __len__(self) -> int:
        return self._count

    def get(self, endpoint_id: EndpointId) -> SignedPacket | None:
        """The packet of an endpoint. Raises LocalError when the store cannot be read."""
        try:
            with closing(
                self._database.execute(
                    "SELECT payload FROM packet WHERE endpoint_id = ?", (endpoint_id.key,)
                )
            ) as cursor:
                row = cursor.fetchone()
        except sqlite3.Error as error:
            raise LocalError(f"record store {self._place}: {error}") from None
        if row is None:
            return None
        try:
            return SignedPacket.from_verified(endpoint_id, row[0])
        except ProtocolError:
            return None  # damaged on disk: as good as not there

    def put(self, packet: SignedPacket) -> bool:
        """Keep a verified packet unless a newer one of its endpoint is here. Says whether it was
        kept. Raises LocalError when it cannot be written."""
        known = self.get(packet.endpoint_id)
        if known is not None and not packet.replaces(known):
            return False
        dated = min(packet.timestamp, self._clock())
        try:
            self._write(packet, dated)
        except sqlite3.Error as error:
            raise LocalError(f"record store {self._place}: {error}") from None
        self.pending += 1
        return True

    def _write(self, packet: SignedPacket, dated: int) -> None:
        key = packet.endpoint_id.key
        exists = self._one("SELECT count(*) FROM packet WHERE endpoint_id = ?", key)
        if not exists and self._count >= self._max_records:
            self._drop(
                "endpoint_id IN (SELECT endpoint_id FROM packet ORDER BY dated LIMIT ?)",
                self._count - self._max_records + 1,
            )
        self._database.execute(
            "INSERT OR REPLACE INTO packet VALUES (?, ?, ?)", (key, packet.payload, dated)
        ).close()
        self._count += not exists

    def _drop(self, condition: str, argument: int) -> int:
        with closing(
            self._database.execute(f"DELETE FROM packet WHERE {condition}", (argument,))
        ) as cursor:
            self._count -= cursor.rowcount
            return cursor.rowcount

    def commit(self) -> None:
        """Write what is pending. Raises LocalError; it stays pending then."""
        try:
            self._database.commit()
        except sqlite3.Error as error:
            raise LocalError(f"record store {self._place}: {error}") from None
        self.pending = 0

    def evict(self, age: float) -> int:
        """Drop packets older than `age` seconds and say how many. Raises LocalError."""
        try:
            dropped = self._drop("dated < ?", self._clock() - int(age * _MICROSECONDS))
        except sqlite3.Error as error:
            raise LocalError(f"record store {self._place}: {error}") from None
        self.commit()
        return dropped

    def close(self) -> None:
        """Commit and close. Idempotent. Raises LocalError when the last packets are lost."""
        try:
            self._database.commit()
        except sqlite3.ProgrammingError:
            return  # closed before
        except sqlite3.Error as error:
            raise LocalError(f"record store {self._place}: {error}") from None
        finally:
            self._database.close()
