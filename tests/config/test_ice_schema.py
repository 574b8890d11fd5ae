from tunnel_rs.config import schema
from tunnel_rs.config.ice_schema import (
    EXCLUSIONS,
    Mode,
    all_options,
    modes_of,
    options_for,
    refused,
)
from tunnel_rs.config.option import Role


def test_every_key_is_in_the_table_of_the_mode_and_used_once() -> None:
    for role in Role:
        for mode in Mode:
            keys = [key for option in options_for(role, mode) for key in option.keys]
            assert len(keys) == len(set(keys))
            assert all(key.startswith(f"{mode}.") or key == "source" for key in keys)


def test_every_flag_is_used_once() -> None:
    for role in Role:
        flags = [flag for option in all_options(role) for flag in option.flags]
        assert len(flags) == len(set(flags))


def test_modes_have_options_of_their_own() -> None:
    assert modes_of("allowed_tcp") == (Mode.MANUAL, Mode.NOSTR)
    assert modes_of("offer_file") == (Mode.MANUAL,)
    assert modes_of("relays") == (Mode.NOSTR,)


def test_a_top_level_source_is_the_client_s_only() -> None:
    assert "source" in {k for o in options_for(Role.CLIENT, Mode.MANUAL) for k in o.keys}
    assert "source" not in {k for o in options_for(Role.SERVER, Mode.MANUAL) for k in o.keys}


def test_what_is_as_in_tunnel_rs_is_written_in_the_table_of_the_mode() -> None:
    client = {option.name: option for option in options_for(Role.CLIENT, Mode.NOSTR)}
    assert client["target"].key == "nostr.target"
    assert client["source"].keys == ("nostr.request_source", "nostr.source", "source")
    assert "[[nostr.tunnels]]" in client["tunnels"].doc
    assert client["receive_window"].key == "nostr.transport.receive_window"
    assert schema.TARGET.key == "iroh.target"


def test_a_table_of_the_other_mode_is_refused_with_the_reason() -> None:
    [one] = refused(Mode.MANUAL)
    assert one.key == "nostr" and 'mode = "manual"' in one.reason


def test_exclusions_are_of_known_options() -> None:
    names = {option.name for role in Role for option in all_options(role)}
    assert {e.first.name for e in EXCLUSIONS} | {e.second.name for e in EXCLUSIONS} <= names
