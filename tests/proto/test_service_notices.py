import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_rs.proto import service_notices
from tunnel_rs.proto.service_notices import address, ready, reloading, watchdog_period


def test_being_ready_may_come_with_words() -> None:
    assert ready() == b"READY=1\n"
    assert ready("serving") == b"READY=1\nSTATUS=serving\n"


@given(st.text(min_size=1))
def test_no_text_can_add_a_line_of_its_own(text: str) -> None:
    lines = ready(text).decode().splitlines()
    assert len(lines) == 2 and lines[0] == "READY=1" and lines[1].startswith("STATUS=")
    assert len(lines[1]) <= len("STATUS=") + service_notices.MAX_STATUS


def test_reloading_names_the_time_it_began() -> None:
    assert reloading(1234567) == b"RELOADING=1\nMONOTONIC_USEC=1234567\n"


@pytest.mark.parametrize(
    ("given", "to"),
    [
        (None, None),
        ("", None),
        ("/", None),
        ("/run/systemd/notify", "/run/systemd/notify"),
        ("@/org/notify", "\0/org/notify"),
        ("vsock:2:1234", None),
        ("relative", None),
        ("/with\0zero", None),
        ("/" + "x" * 106, "/" + "x" * 106),
        ("/" + "x" * 107, None),
    ],
)
def test_notices_go_to_a_socket_of_this_machine(given: str | None, to: str | None) -> None:
    assert address({} if given is None else {"NOTIFY_SOCKET": given}) == to


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": ""}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "٣"}, None),
        ({"WATCHDOG_USEC": "9" * 19}, None),
    ],
)
def test_the_watchdog_is_told_twice_in_the_time_it_allows(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert watchdog_period(environ, 7) == seconds
