from pathlib import Path

from tunnel_rs.config.operations import OperationSettings, operation_settings
from tunnel_rs.config.option import Role
from tunnel_rs.config.sources import collect
from tunnel_rs.values import SocketAddr


def built(**given: str) -> OperationSettings:
    texts = {name: [text] for name, text in given.items()}
    return operation_settings(collect(Role.SERVER, texts, {}, None))


def test_by_default_there_is_a_control_socket_and_nothing_else() -> None:
    assert built() == OperationSettings(True, None, None, None)


def test_each_can_be_chosen() -> None:
    chosen = built(control_socket="/x/y.sock", metrics_bind="[::1]:9090", audit_log="/var/a.log")
    assert chosen.control and chosen.control_socket == Path("/x/y.sock")
    assert chosen.metrics_bind == SocketAddr("::1", 9090)
    assert chosen.audit_log == Path("/var/a.log")


def test_the_control_socket_can_be_turned_off() -> None:
    off = built(control_socket="none")
    assert not off.control and off.control_socket is None
