import plistlib
from dataclasses import replace
from pathlib import Path

from tunnel_rs.cli.launchd_plist import plist_text
from tunnel_rs.cli.service_plan import KINDS, NamedFile, Plan, Scope

KEY = NamedFile("--secret-file", "secret_file", Path("/etc/t & t/server.key"), True)
PLAN = Plan(
    KINDS["server"],
    Scope.SYSTEM,
    Path("/etc/t & t/server.toml"),
    ("/opt/bin/tunnel-rs", "server"),
    "nobody",
    files=(KEY,),
)


def test_launchd_reads_the_same_command_line() -> None:
    found = plistlib.loads(plist_text(PLAN, Path("/Library/Logs/x.log")).encode())
    assert found["ProgramArguments"] == [
        *("/opt/bin/tunnel-rs", "server", "--config", "/etc/t & t/server.toml"),
        *("--secret-file", "/etc/t & t/server.key"),
    ]
    assert found["Label"] == "rs.tunnel.tunnel-rs-server"
    assert found["UserName"] == "nobody"
    assert found["StandardErrorPath"] == "/Library/Logs/x.log"


def test_it_runs_from_the_start_and_again_when_it_fails() -> None:
    found = plistlib.loads(plist_text(PLAN, Path("/Library/Logs/x.log")).encode())
    assert found["RunAtLoad"] and found["KeepAlive"] == {"SuccessfulExit": False}
    assert found["Umask"] == 0o077


def test_a_users_service_is_the_users() -> None:
    plan = replace(PLAN, scope=Scope.USER)
    found = plistlib.loads(plist_text(plan, Path("/Users/me/Library/Logs/x.log")).encode())
    assert "UserName" not in found


KNOWN = {
    "Label": str,
    "ProgramArguments": list,
    "WorkingDirectory": str,
    "RunAtLoad": bool,
    "KeepAlive": dict,
    "ThrottleInterval": int,
    "ProcessType": str,
    "Umask": int,
    "SoftResourceLimits": dict,
    "StandardErrorPath": str,
    "StandardOutPath": str,
    "UserName": str,
}
"""Keys of launchd.plist(5) and the type that each has to have."""


def test_every_key_is_one_that_launchd_knows_and_of_its_type() -> None:
    for kind in KINDS.values():
        for scope in Scope:
            plan = replace(PLAN, kind=kind, scope=scope)
            found = plistlib.loads(plist_text(plan, Path("/Library/Logs/x.log")).encode())
            assert {key: type(value) for key, value in found.items()}.items() <= KNOWN.items()
            # Others are throttled, and paths are not looked up in any PATH.
            assert found["ProcessType"] == "Interactive"
            assert found["ProgramArguments"][0].startswith("/")
