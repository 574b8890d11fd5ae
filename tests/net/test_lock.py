import os
import subprocess
import sys
from pathlib import Path

import pytest

from tunnel_rs.errors import LocalError
from tunnel_rs.net.lock import InstanceLock, vpn_client_lock


def test_the_file_is_the_one_of_all_versions(tmp_path: Path) -> None:
    assert vpn_client_lock({"XDG_RUNTIME_DIR": "/run/user/7"}) == Path(
        "/run/user/7/tunnel-vpn.lock"
    )
    assert vpn_client_lock({}).name == "tunnel-vpn.lock"
    assert vpn_client_lock({"XDG_RUNTIME_DIR": "not/absolute"}) == vpn_client_lock({})


def test_only_one_at_a_time(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    with InstanceLock(path):
        assert path.read_text() == f"{os.getpid()}\n"
        with pytest.raises(LocalError, match="another VPN client is running"), InstanceLock(path):
            pass
    with InstanceLock(path):
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_only_one_at_a_time_also_for_users_who_look_for_another_file(tmp_path: Path) -> None:
    with InstanceLock(tmp_path / "one.lock"):
        with pytest.raises(LocalError, match="another VPN client"):
            InstanceLock(tmp_path / "other.lock").__enter__()
    with InstanceLock(tmp_path / "other.lock"):
        pass


def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "x.lock"
    code = (
        "import os, sys; from pathlib import Path; from tunnel_rs.net.lock import InstanceLock;"
        "lock = InstanceLock(Path(sys.argv[1])).__enter__(); os.kill(os.getpid(), 9)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code, str(path)], env=environment)
    assert path.read_text().strip().isdigit()
    with InstanceLock(path):
        pass


def test_a_link_put_in_its_place_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("data")
    (tmp_path / "x.lock").symlink_to(target)
    with pytest.raises(LocalError, match="cannot open the lock"), InstanceLock(tmp_path / "x.lock"):
        pass
    assert target.read_text() == "data"
