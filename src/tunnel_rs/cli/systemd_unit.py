"""The unit file that runs one of our programs under systemd.

Source: systemd.service(5), systemd.exec(5), systemd.syntax(7) of version 250, the first with %d
(the directory of a unit's credentials).
"""

import re
from collections.abc import Iterator
from pathlib import Path

from tunnel_rs.cli.service_plan import Plan, Scope
from tunnel_rs.errors import ExitStatus, UsageError

USER = "tunnel-rs"
"""Whom system services run as unless somebody else is named."""

WATCHDOG = 30
"""Seconds without a sign of life after which systemd starts the program anew."""

_PLAIN = re.compile(r"[A-Za-z0-9_@/.,:+=-]+")
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")
"""What `ProtectHome=yes` and `PrivateTmp=yes` hide."""


def check_visible(plan: Plan) -> None:
    """Raises UsageError for a file that the sandboxed service could not see."""
    if plan.scope is Scope.USER or plan.kind.is_vpn:
        return
    for path in (*plan.readable, Path(plan.program[0]).resolve()):
        for place in _HIDDEN:
            if path.is_relative_to(place):
                raise UsageError(
                    f"{path}: a system service does not see what is below {place}; "
                    "have it elsewhere, for example in /etc/tunnel-rs (files) or /opt (programs)"
                )


def unit_text(plan: Plan) -> str:
    """The whole unit file."""
    parts = [
        ("Unit", _unit(plan)),
        ("Service", _service(plan)),
        ("Install", ["WantedBy=" + _target(plan)]),
    ]
    texts = [f"[{title}]\n" + "\n".join(lines) for title, lines in parts]
    head = f"# Written by `tunnel-rs service install {plan.kind.name}`; see docs/INSTALL.md.\n"
    return head + "\n\n".join(texts) + "\n"


def word(text: str) -> str:
    """One word of a command line: specifiers (%) and variables ($) stay as they are written."""
    text = text.replace("%", "%%").replace("$", "$$")
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _path(path: Path) -> str:
    """A path as the value of a setting."""
    return str(path).replace("%", "%%")


def _target(plan: Plan) -> str:
    return "multi-user.target" if plan.scope is Scope.SYSTEM else "default.target"


def _unit(plan: Plan) -> Iterator[str]:
    yield f"Description={' '.join(plan.kind.words)} with {_path(plan.config)}"
    if plan.scope is Scope.SYSTEM:
        yield "Wants=network-online.target"
        yield "After=network-online.target nss-lookup.target"
    yield "StartLimitIntervalSec=300"
    yield "StartLimitBurst=10"


def _service(plan: Plan) -> Iterator[str]:
    yield "Type=notify"
    yield "NotifyAccess=main"
    yield f"ExecStart={_command(plan)}"
    if plan.kind.reloads:
        yield "ExecReload=/bin/kill -HUP $MAINPID"
    yield f"WorkingDirectory={_path(plan.config.parent)}"
    yield f"WatchdogSec={WATCHDOG}"
    yield "Restart=on-failure"
    yield "RestartSec=5"
    yield "# Trying again mends neither a wrong option, a refused token nor a mistake in a file."
    statuses = (ExitStatus.USAGE, ExitStatus.AUTH_REFUSED, ExitStatus.INVALID_CONFIG)
    yield f"RestartPreventExitStatus={' '.join(str(int(status)) for status in statuses)}"
    yield f"SuccessExitStatus={int(ExitStatus.TERMINATED)}"
    yield "TimeoutStopSec=15"
    yield "LimitNOFILE=65536"
    for file in plan.files:
        if file.once:
            yield f"LoadCredential={file.option}:{_path(file.path)}"
    if plan.scope is Scope.SYSTEM:
        yield from _system_places(plan)
        yield from _system_sandbox(plan)
    yield from _process_sandbox()


def _command(plan: Plan) -> str:
    words = [word(part) for part in plan.program]
    words += [plan.kind.config_flag, word(str(plan.config))]
    for file in plan.files:
        # %d is the directory of the credentials.
        words += [file.flag, f"%d/{file.option}" if file.once else word(str(file.path))]
    return " ".join(words)


def _system_places(plan: Plan) -> Iterator[str]:
    """Whom it runs as, and the directories it may write to."""
    if plan.kind.is_vpn:
        return
    yield f"User={plan.run_as or USER}"
    # Where root's `tunnel-rs status` looks for control sockets; other services have theirs there.
    yield "RuntimeDirectory=tunnel-rs"
    yield "RuntimeDirectoryMode=0700"
    yield "RuntimeDirectoryPreserve=yes"
    yield "Environment=XDG_RUNTIME_DIR=%t"
    yield "LogsDirectory=tunnel-rs"
    if plan.kind.keeps_data:
        yield "StateDirectory=tunnel-rs"
        yield "Environment=XDG_DATA_HOME=%S"


def _system_sandbox(plan: Plan) -> Iterator[str]:
    """What the system need not show it. A VPN makes devices, routes and resolver settings."""
    allowed = _capabilities(plan)
    yield f"CapabilityBoundingSet={allowed}"
    yield "ProtectHome=read-only" if plan.kind.is_vpn else "ProtectHome=yes"
    if plan.kind.is_vpn:
        yield "DevicePolicy=closed"
        yield "DeviceAllow=/dev/net/tun rw"
        yield "ProtectSystem=yes"
    else:
        yield f"AmbientCapabilities={allowed}"
        yield "PrivateDevices=yes"
        yield "ProcSubset=pid"
        yield "ProtectKernelTunables=yes"
        yield "ProtectProc=invisible"
        yield "ProtectSystem=strict"
        yield "RemoveIPC=yes"
    for setting in ("PrivateTmp", "ProtectClock", "ProtectControlGroups", "ProtectHostname"):
        yield f"{setting}=yes"
    yield "ProtectKernelLogs=yes"
    yield "ProtectKernelModules=yes"
    yield "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK"
    yield "SystemCallFilter=@system-service"
    yield "SystemCallErrorNumber=EPERM"


def _capabilities(plan: Plan) -> str:
    if plan.kind.is_vpn:
        return "CAP_NET_ADMIN CAP_NET_RAW CAP_NET_BIND_SERVICE"
    return "CAP_NET_BIND_SERVICE" if plan.kind.low_ports else ""


def _process_sandbox() -> Iterator[str]:
    """What the process cannot do to itself; works in a user's manager too.

    `MemoryDenyWriteExecute` is not among it: Pythons with a compiler (3.13 and later can be built
    with one) write code at run time.
    """
    yield "LockPersonality=yes"
    yield "NoNewPrivileges=yes"
    yield "RestrictNamespaces=yes"
    yield "RestrictRealtime=yes"
    yield "RestrictSUIDSGID=yes"
    yield "SystemCallArchitectures=native"
    yield "UMask=0077"
