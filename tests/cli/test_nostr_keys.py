from pathlib import Path

from click.testing import CliRunner

from tunnel_rs.cli.nostr_keys import generate_nostr_key, show_npub
from tunnel_rs.errors import ExitStatus
from tunnel_rs.proto.nostr_keys import NostrSecretKey

# Raises what has these tests skipped where there is no arithmetic for keys.
NostrSecretKey.parse("01" * 32)


def test_a_key_is_made_and_its_npub_shown(tmp_path: Path) -> None:
    path = tmp_path / "key"
    made = CliRunner().invoke(generate_nostr_key, ["-o", str(path)])
    shown = CliRunner().invoke(show_npub, ["-n", str(path)])
    assert made.exit_code == shown.exit_code == 0
    assert made.stdout == f"npub: {shown.stdout}"
    assert shown.stdout.startswith("npub1")
    again = CliRunner().invoke(generate_nostr_key, ["-o", str(path)])
    assert again.exit_code == ExitStatus.FAILURE and "--force" in again.stderr


def test_a_key_may_be_printed() -> None:
    made = CliRunner().invoke(generate_nostr_key, ["-o", "-"])
    npub = NostrSecretKey.parse(made.stdout.strip()).public_key.npub
    assert made.stderr == f"npub: {npub}\n"


def test_the_npub_of_a_key_on_the_command_line_is_shown() -> None:
    shown = CliRunner().invoke(show_npub, ["--nsec", "01" * 32])
    assert shown.stdout.strip() == NostrSecretKey.parse("01" * 32).public_key.npub
    for wrong in ([], ["--nsec", "x"], ["--nsec", "x", "-n", "y"]):
        assert CliRunner().invoke(show_npub, wrong).exit_code == ExitStatus.USAGE
