import pytest
from tests.support.program import run_vpn

from tunnel_rs.cli.vpn import VpnGroup


@pytest.mark.parametrize("command", ["", *VpnGroup.table])
def test_every_help_has_an_example(command: str) -> None:
    ended = run_vpn(*filter(None, [command]), "--help")
    assert ended.status == 0
    assert "Example" in ended.out


def test_the_version_names_the_program() -> None:
    assert run_vpn("--version").out.startswith("tunnel-rs-vpn ")


def test_a_command_that_is_not_there_is_told_with_the_nearest() -> None:
    ended = run_vpn("sever")
    assert ended.status == 2
    assert "did you mean 'server'" in ended.err


def test_tokens_and_keys_are_made_here_too() -> None:
    assert len(run_vpn("generate-token").out.strip()) == 18
