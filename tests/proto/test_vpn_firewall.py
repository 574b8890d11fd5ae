import shutil
import subprocess

import pytest

from tunnel_rs.proto.vpn_firewall import Forwarding, client_rules, removal, server_rules
from tunnel_rs.proto.vpn_routes import MARK


def test_masquerading_is_only_for_what_leaves_by_another_interface() -> None:
    rules = server_rules(Forwarding("vpn0", isolate=False, masquerade=True))
    assert 'iifname "vpn0" oifname != "vpn0" masquerade' in rules
    assert "drop" not in rules


def test_isolated_clients_do_not_reach_each_other() -> None:
    rules = server_rules(Forwarding("vpn0", isolate=True, masquerade=False))
    assert 'iifname "vpn0" oifname "vpn0" drop' in rules
    assert "masquerade" not in rules


def test_the_table_is_made_anew() -> None:
    rules = server_rules(Forwarding("vpn0", isolate=True, masquerade=True))
    name = "tunnel_rs_vpn_of_vpn0"
    assert rules.startswith(f"table inet {name}\ndelete table inet {name}\ntable inet {name} {{")
    assert removal(name) == f"table inet {name}\ndelete table inet {name}\n"


def test_answers_to_marked_packets_get_the_mark() -> None:
    assert f"ct mark {MARK:#x} meta mark set ct mark" in client_rules()


@pytest.mark.parametrize("device", ["", "a" * 16, 'x" drop', "a b", "a\nb", "ä", "a;b"])
def test_a_name_that_nft_could_misread_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match="no name of an interface"):
        server_rules(Forwarding(device, isolate=True, masquerade=True))


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
@pytest.mark.parametrize("masquerade", [True, False])
@pytest.mark.parametrize("isolate", [True, False])
def test_nft_takes_the_rules(masquerade: bool, isolate: bool) -> None:
    for text in (server_rules(Forwarding("vpn-0_x", isolate, masquerade)), client_rules()):
        checked = subprocess.run(
            ["nft", "--check", "-f", "-"], input=text, capture_output=True, text=True
        )
        if "Operation not permitted" in checked.stderr:
            pytest.skip("nft needs privileges here")
        assert checked.returncode == 0, checked.stderr
