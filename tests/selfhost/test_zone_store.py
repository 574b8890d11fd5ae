import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from tests.support.discovery import NOW, RELAY_RECORD, WallClock, packet

from tunnel_rs.errors import LocalError
from tunnel_rs.proto.pkarr import EndpointRecord
from tunnel_rs.selfhost.zone_store import FILE_NAME, ZoneStore

DAY = 86_400
DAY_US = DAY * 1_000_000


def store_in(
    directory: Path | None, clock: WallClock | None = None, limit: int = 1000
) -> ZoneStore:
    return ZoneStore(directory, clock or WallClock(), max_records=limit)


@pytest.fixture
def store(tmp_path: Path):  # type: ignore[no-untyped-def]
    opened = store_in(tmp_path)
    yield opened
    opened.close()


def test_a_packet_is_found_again(store: ZoneStore) -> None:
    assert store.put(packet())
    assert store.get(packet().endpoint_id) == packet()
    assert store.get(packet(2).endpoint_id) is None
    assert len(store) == 1


def test_the_newest_packet_wins(store: ZoneStore) -> None:
    newer = packet(record=EndpointRecord(("https://new.example/",)), timestamp=NOW + 1)
    assert store.put(packet())
    assert store.put(newer)
    assert not store.put(packet())
    assert not store.put(newer)
    assert store.get(newer.endpoint_id) == newer
    assert len(store) == 1


def test_timestamps_over_63_bits_are_kept(store: ZoneStore) -> None:
    last = packet(timestamp=2**64 - 1)
    assert store.put(last)
    assert store.get(last.endpoint_id) == last


def test_records_survive_a_restart(tmp_path: Path) -> None:
    first = store_in(tmp_path)
    first.put(packet())
    first.close()
    first.close()
    second = store_in(tmp_path)
    assert len(second) == 1
    assert second.get(packet().endpoint_id) == packet()
    second.close()


def test_a_crash_loses_only_what_was_not_committed(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.put(packet(1))
    assert store.pending == 1
    store.commit()
    assert store.pending == 0
    store.put(packet(2))
    store._database.close()  # as if the process had been killed: no commit
    again = store_in(tmp_path)
    assert again.get(packet(1).endpoint_id) is not None
    assert again.get(packet(2).endpoint_id) is None
    again.close()


def test_records_are_evicted_by_their_own_date() -> None:
    clock = WallClock()
    store = store_in(None, clock)
    store.put(packet(1, timestamp=NOW - 6 * DAY_US))
    store.put(packet(2, timestamp=NOW))
    clock.now += 2 * DAY_US
    assert store.evict(7 * DAY) == 1
    assert store.get(packet(1).endpoint_id) is None
    assert store.get(packet(2).endpoint_id) is not None
    assert len(store) == 1
    store.close()


def test_a_record_dated_in_the_future_is_as_old_as_its_arrival() -> None:
    clock = WallClock()
    store = store_in(None, clock)
    store.put(packet(timestamp=NOW + 1000 * DAY_US))
    clock.now += 8 * DAY_US
    assert store.evict(7 * DAY) == 1
    store.close()


def test_the_oldest_makes_room_when_the_store_is_full() -> None:
    store = store_in(None, limit=3)
    for number in (1, 2, 3, 4):
        store.put(packet(number, timestamp=NOW - 100 + number))
    assert len(store) == 3
    assert store.get(packet(1).endpoint_id) is None
    store.put(packet(2, timestamp=NOW))  # an update makes nobody leave
    assert len(store) == 3
    assert store.get(packet(3).endpoint_id) is not None
    store.close()


def test_a_smaller_limit_than_before_takes_effect(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    for number in range(1, 6):
        store.put(packet(number, timestamp=NOW + number))
    store.close()
    smaller = store_in(tmp_path, limit=2)
    smaller.put(packet(9, timestamp=NOW + 9))
    assert len(smaller) == 2
    smaller.close()


def test_the_directory_is_made_and_private(tmp_path: Path) -> None:
    store = store_in(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    store.close()


def test_two_servers_cannot_share_a_store(tmp_path: Path, store: ZoneStore) -> None:
    with pytest.raises(LocalError, match="in use by another"):
        store_in(tmp_path)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"precious notes" * 100)
    with pytest.raises(LocalError, match="move it away"):
        store_in(tmp_path)
    assert (tmp_path / FILE_NAME).read_bytes() == b"precious notes" * 100


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as other:
        other.execute("PRAGMA user_version = 1")
    with pytest.raises(LocalError, match="another program"):
        store_in(tmp_path)


def test_a_directory_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match="record store"):
        store_in(tmp_path / "file" / "data")


def test_a_damaged_packet_is_as_good_as_not_there(store: ZoneStore) -> None:
    store.put(packet())
    store._database.execute("UPDATE packet SET payload = x'00'").close()
    assert store.get(packet().endpoint_id) is None
    assert store.put(packet())
    found = store.get(packet().endpoint_id)
    assert found is not None
    assert found.endpoint_record() == RELAY_RECORD


def test_a_store_that_fails_says_so(store: ZoneStore) -> None:
    store.close()
    for use in (
        lambda: store.get(packet().endpoint_id),
        lambda: store.put(packet()),
        store.commit,
        lambda: store.evict(DAY),
    ):
        with pytest.raises(LocalError, match="record store"):
            use()
