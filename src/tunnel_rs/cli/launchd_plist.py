"""The property list that runs one of our programs under macOS's launchd.

Source: launchd.plist(5).
"""

import plistlib
from pathlib import Path

from tunnel_rs.cli.service_plan import Plan, Scope


def label(name: str) -> str:
    """What launchd calls a service."""
    return f"rs.tunnel.{name}"


def plist_text(plan: Plan, log: Path) -> str:
    """The whole property list. `log` is the file that gets what the program prints; launchd opens
    it as the user that the program runs as."""
    arguments = [*plan.program, plan.kind.config_flag, str(plan.config)]
    for file in plan.files:
        arguments += [file.flag, str(file.path)]
    content: dict[str, object] = {
        "Label": label(plan.name),
        "ProgramArguments": arguments,
        "WorkingDirectory": str(plan.config.parent),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 5,
        # Somebody may wait for what is forwarded: `Background` is throttled.
        "ProcessType": "Interactive",
        "Umask": 0o077,
        "SoftResourceLimits": {"NumberOfFiles": 4096},
        "StandardErrorPath": str(log),
        "StandardOutPath": str(log),
    }
    if plan.scope is Scope.SYSTEM and plan.run_as is not None:
        content["UserName"] = plan.run_as
    return plistlib.dumps(content, sort_keys=False).decode()
