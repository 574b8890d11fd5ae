"""Our unit files under a real systemd."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.samples import TOKEN
from tests.support.systemd import PROGRAM, Systemd, own_systemd

from tunnel_rs.cli.service_plan import KINDS, NamedFile, Plan, Scope
from tunnel_rs.cli.systemd_unit import unit_text
from tunnel_rs.proto.identity import encode_secret_key
from tunnel_rs.proto.nostr_keys import NostrSecretKey
from tunnel_rs.values import Secret

pytestmark = [pytest.mark.netns, pytest.mark.slow]

KEY = Secret(bytes(range(1, 33)))
SERVER = """\
role = "server"
mode = "iroh"
[iroh]
bind = "127.0.0.1:4433"
relay_urls = ["none"]
dns_server = "none"
[iroh.allowed_sources]
tcp = ["127.0.0.0/8"]
"""
RELAY = 'http_bind_addr = "127.0.0.1:80"\nenable_metrics = false\n'
ICE_CLIENT = """\
role = "client"
mode = "nostr"
[nostr]
peer_npub = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg"
relays = ["ws://127.0.0.1:9"]
stun_servers = []
request_source = "tcp://127.0.0.1:22"
target = "127.0.0.1:2222"
"""
MANAGER = """\
[Service]
Type=notify
User=nobody
Delegate=yes
RuntimeDirectory=manager
Environment=HOME=/run/manager XDG_RUNTIME_DIR=/run/manager XDG_CONFIG_HOME=/run/manager/config
ExecStart=/lib/systemd/systemd --user
"""
SAID = "[Service]\nStandardOutput=append:/run/said\nStandardError=append:/run/said\n"
IMPATIENT = "WatchdogSec=2\nTimeoutAbortSec=1\nRestartSec=100ms\n"


def plan(kind: str, *files: NamedFile) -> Plan:
    config = Path(f"/mnt/etc/{kind}.toml")
    program = (PROGRAM, KINDS[kind].words[1])
    return Plan(KINDS[kind], Scope.SYSTEM, config, program, "nobody", files=files)


@pytest.fixture(scope="module")
def systemd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Systemd]:
    with own_systemd(tmp_path_factory.mktemp("systemd")) as systemd:
        yield systemd


def installed(systemd: Systemd, plan: Plan, config: str, more: str = "") -> None:
    """As `tunnel-rs service install --system` does it; what ran of it before has ended."""
    systemd.run("systemctl", "stop", plan.name, check=False)
    systemd.write(str(plan.config), config)
    systemd.write(f"/etc/systemd/system/{plan.name}.service", unit_text(plan))
    systemd.run("mkdir", "-p", f"/run/systemd/system/{plan.name}.service.d")
    systemd.write(f"/run/systemd/system/{plan.name}.service.d/test.conf", SAID + more)
    systemd.run("systemctl", "daemon-reload")


def started(systemd: Systemd, plan: Plan, config: str, more: str = "") -> dict[str, str]:
    """Installed and started: its properties."""
    installed(systemd, plan, config, more)
    systemd.run("systemctl", "start", plan.name, check=False)
    state = systemd.show(plan.name)
    assert state["ActiveState"] == "active", systemd.run("cat", "/run/said")
    return state


def test_nothing_reaches_this_machine(systemd: Systemd) -> None:
    for path in ("/x", "/etc/x", "/usr/x", "/var/x", "/proc/sys/kernel/pid_max"):
        failed = systemd.run("sh", "-c", 'echo 1 >"$0" && echo written', path, check=False)
        assert failed == "", path
    assert systemd.run("find", "/tmp", "-mindepth", "1", "-type", "f") == ""


def test_a_server_starts_reloads_and_stops_with_a_key_that_only_root_can_read(
    systemd: Systemd,
) -> None:
    key = NamedFile("--secret-file", "secret_file", Path("/mnt/etc/server.key"), True)
    tokens = NamedFile("--auth-tokens-file", "auth_tokens_file", Path("/mnt/etc/tokens"), False)
    systemd.write(str(key.path), encode_secret_key(KEY), "600")
    systemd.write(str(tokens.path), TOKEN)
    server = plan("server", key, tokens)
    state = started(systemd, server, SERVER)
    assert (state["ActiveState"], state["SubState"]) == ("active", "running")
    assert state["StatusText"].startswith("Waiting for clients to connect")
    status = systemd.run("cat", f"/proc/{state['MainPID']}/status")
    assert "CapEff:\t0000000000000000" in status and "NoNewPrivs:\t1" in status
    assert "Uid:\t65534" in status and "Seccomp:\t2" in status

    assert "server" in systemd.run(PROGRAM, "status")

    systemd.run("systemctl", "reload", server.name)
    again = systemd.until(server.name, ActiveState="active")
    assert again["MainPID"] == state["MainPID"]

    systemd.run("systemctl", "stop", server.name)
    ended = systemd.show(server.name)
    assert (ended["ActiveState"], ended["Result"]) == ("inactive", "success")


def test_a_user_has_a_service_with_a_key_of_their_own(systemd: Systemd) -> None:
    """Under the systemd of a user without rights, who has nowhere to write to."""
    systemd.write("/etc/systemd/system/manager.service", MANAGER)
    systemd.run("systemctl", "start", "manager")
    key = NamedFile("--secret-file", "secret_file", Path("/mnt/etc/user.key"), True)
    tokens = NamedFile("--auth-tokens-file", "auth_tokens_file", Path("/mnt/etc/tokens"), False)
    systemd.write(str(key.path), encode_secret_key(KEY), "600")
    systemd.run("chown", "nobody", str(key.path))
    systemd.write(str(tokens.path), TOKEN)
    server = replace(plan("server", key, tokens), scope=Scope.USER, instance="user")
    systemd.write(str(server.config), SERVER.replace("4433", "4434"))
    folder = "/run/manager/config/systemd/user"
    systemd.run("mkdir", "-p", folder)
    systemd.write(f"{folder}/{server.name}.service", unit_text(server))
    as_user = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    systemctl = (*as_user, "env", "XDG_RUNTIME_DIR=/run/manager", "systemctl", "--user")
    systemd.run(*systemctl, "daemon-reload")
    systemd.run(*systemctl, "start", server.name, check=False)
    shown = systemd.run(*systemctl, "show", server.name)
    assert "ActiveState=active\n" in shown
    assert "StatusText=Waiting for clients to connect" in shown
    systemd.run("systemctl", "stop", "manager")


def test_a_relay_may_have_a_low_port_and_nothing_else(systemd: Systemd) -> None:
    state = started(systemd, plan("relay"), RELAY)
    assert "Relay is ready" in state["StatusText"]
    status = systemd.run("cat", f"/proc/{state['MainPID']}/status")
    assert "CapEff:\t0000000000000400" in status  # CAP_NET_BIND_SERVICE


def test_a_discovery_server_keeps_its_records_in_its_own_directory(systemd: Systemd) -> None:
    config = '[http]\nbind_addr = "127.0.0.1"\nport = 8080\n[metrics]\ndisabled = true\n'
    state = started(systemd, plan("dns-server"), config)
    assert "Discovery server is ready" in state["StatusText"]
    found = systemd.run("stat", "-c", "%U %a", "/var/lib/tunnel-rs/dns-server")
    assert found.startswith("nobody")


def test_a_nostr_client_has_its_key_and_is_ready_although_its_server_is_away(
    systemd: Systemd,
) -> None:
    script = systemd.run("cat", PROGRAM)
    start = "-c 'from tunnel_rs.cli.ice import main; main()'"
    systemd.write("/mnt/bin/tunnel-rs-ice", script.replace("-m tunnel_rs", start), "755")
    key = NamedFile("--nsec-file", "nsec_file", Path("/mnt/etc/client.nsec"), True)
    systemd.write(str(key.path), NostrSecretKey(KEY).nsec, "600")
    client = plan("ice-client", key)
    client = replace(client, program=("/mnt/bin/tunnel-rs-ice", "client"))
    state = started(systemd, client, ICE_CLIENT)
    assert state["StatusText"] == "trying Nostr relays"
    systemd.run("systemctl", "stop", client.name)
    assert systemd.show(client.name)["Result"] == "success"


def test_one_that_hangs_is_started_anew(systemd: Systemd) -> None:
    relay = plan("relay")
    state = started(systemd, relay, RELAY, IMPATIENT)
    systemd.run("kill", "-STOP", state["MainPID"])
    again = systemd.until(relay.name, NRestarts="1", ActiveState="active")
    assert again["MainPID"] != state["MainPID"]


def test_a_mistake_in_the_file_is_not_tried_again(systemd: Systemd) -> None:
    wrong = plan("relay")
    installed(systemd, wrong, "nonsense = 1\n")
    systemd.run("systemctl", "start", wrong.name, check=False)
    state = systemd.show(wrong.name)
    assert (state["ActiveState"], state["ExecMainStatus"]) == ("failed", "6")
    assert state["NRestarts"] == "0"
