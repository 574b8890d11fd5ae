"""What is in `container-deploy/`: images, compose file, Kubernetes manifests."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from tests.support.samples import TOKEN

from tunnel_rs.cli.main import cli
from tunnel_rs.config.build import build_server
from tunnel_rs.config.dns_server_file import load_dns_server
from tunnel_rs.config.files import ConfigFile
from tunnel_rs.config.keyfile import write_secret_key
from tunnel_rs.config.option import Role
from tunnel_rs.config.relay_file import load_relay
from tunnel_rs.config.sources import collect
from tunnel_rs.values import Secret

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "container-deploy"
DOCKERFILES = sorted(DEPLOY.glob("Dockerfile.*"))
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
USER = 10001

Tree = dict[str, Any]


def tool(name: str) -> str:
    found = shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.skip(f"needs {name}, which is not installed here")
    return found


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    done = subprocess.run(
        [tool("hadolint"), dockerfile], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_as_a_number_that_is_not_root(dockerfile: Path) -> None:
    last = dockerfile.read_text().rpartition("FROM ")[2]
    assert re.findall(r"^USER (.*)$", last, re.M) == [f"{USER}:{USER}"]
    assert re.findall(r"^ENTRYPOINT (.*)$", last, re.M) == ['["tunnel-rs"]']


def test_what_the_images_copy_is_let_through_and_there() -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in ignore if line.startswith("!")}
    for dockerfile in DOCKERFILES:
        copied = re.findall(r"^COPY ((?!--from).*) \S+$", dockerfile.read_text(), re.M)
        names = {name for line in copied for name in line.split()}
        assert names == let_through
        assert all((ROOT / name).exists() for name in names)


def test_the_two_images_differ_in_their_base_alone() -> None:
    slim, alpine = ((DEPLOY / f"Dockerfile.{base}").read_text() for base in ("slim", "alpine"))
    steps = [re.findall(r"^(?!#|FROM).+$", text, re.M) for text in (slim, alpine)]
    assert steps[0] == steps[1]
    assert re.findall(r"^FROM (\S+)", alpine, re.M) == ["python:${PYTHON}-alpine"] * 2


@pytest.mark.skipif(sys.platform == "win32", reason="a script for POSIX shells")
def test_without_an_engine_building_says_so_in_one_line() -> None:
    done = subprocess.run(
        ["sh", DEPLOY / "build.sh"],
        env={"PATH": "/usr/bin:/bin", "ENGINE": "no-such-engine"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "build.sh: no container engine runs here (tried no-such-engine): start one, or name it "
        "with ENGINE="
    ]


def parsed(arguments: list[str]) -> dict[str, Any]:
    """The options of a command line as our own program reads them; fails for one it refuses."""
    context = cli.make_context("tunnel-rs", list(arguments))
    name, command, rest = cli.resolve_command(context, arguments)
    assert command is not None
    return command.make_context(name, rest, parent=context).params


def check_file(command: str, file: Path) -> None:
    """Read a configuration as the command would; raises what is wrong with it."""
    if command == "relay":
        load_relay(file, {})
    elif command == "dns-server":
        load_dns_server(file, {})
    else:
        build_server(collect(Role.SERVER, {}, {}, ConfigFile.read(file)))


def with_secrets_in(folder: Path, text: str) -> str:
    """A configuration whose secrets are in `folder`, where both are made."""
    if not (folder / "server.key").exists():
        write_secret_key(folder / "server.key", Secret(bytes(range(32))), force=False)
        (folder / "tokens.txt").write_text(TOKEN)
    return re.sub(r'"[^"]*/(server\.key|tokens\.txt)"', rf'"{folder}/\1"', text)


@cache
def compose() -> Tree:
    tree = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert isinstance(tree, dict)
    return tree


def test_the_compose_file_follows_its_schema() -> None:
    done = subprocess.run(
        [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
        + [DEPLOY / "compose.yaml"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["relay", "discovery", "server"])
def test_a_compose_service_is_hardened_and_what_it_mounts_is_there(name: str) -> None:
    service = compose()["services"][name]
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service and "user" not in service
    for volume in service["volumes"]:
        source, _, rest = volume.partition(":")
        if source.startswith("."):
            assert (DEPLOY / source).is_file() and rest.endswith(":ro")
        else:
            assert source in compose()["volumes"]
    assert set(service.get("secrets", ())) <= set(compose()["secrets"])


@pytest.mark.parametrize("name", ["relay", "discovery", "server"])
def test_a_compose_service_starts_with_a_configuration_that_is_right(
    name: str, tmp_path: Path
) -> None:
    service = compose()["services"][name]
    options = parsed(service["command"])
    given = options.get("config_path") or options["config"]
    (source,) = (v.split(":")[0] for v in service["volumes"] if v.split(":")[1] == str(given))
    text = with_secrets_in(tmp_path, (DEPLOY / source).read_text())
    file = tmp_path / "config.toml"
    file.write_text(text)
    check_file(service["command"][0], file)


def test_secrets_of_the_compose_file_are_kept_out_of_the_repository() -> None:
    for secret in compose()["secrets"].values():
        path = DEPLOY / secret["file"]
        done = subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False)
        assert done.returncode == 0, path


def documents(manifest: Path) -> list[Tree]:
    return [tree for tree in yaml.safe_load_all(manifest.read_text()) if tree]


def of_kind(manifest: Path, kind: str) -> Iterator[Tree]:
    return (tree for tree in documents(manifest) if tree["kind"] == kind)


def pods(manifest: Path) -> Iterator[tuple[str, Tree, Tree]]:
    """Name, pod template and only container of each deployment."""
    for deployment in of_kind(manifest, "Deployment"):
        template = deployment["spec"]["template"]
        (container,) = template["spec"]["containers"]
        yield deployment["metadata"]["name"], template, container


each_manifest = pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda path: path.name)


@each_manifest
def test_no_pod_has_rights(manifest: Path) -> None:
    for _, template, container in pods(manifest):
        pod = template["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]


@each_manifest
def test_every_volume_is_mounted_and_every_mount_has_a_volume(manifest: Path) -> None:
    maps = {tree["metadata"]["name"] for tree in of_kind(manifest, "ConfigMap")}
    claims = {tree["metadata"]["name"] for tree in of_kind(manifest, "PersistentVolumeClaim")}
    for _, template, container in pods(manifest):
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        assert set(volumes) == {mount["name"] for mount in container["volumeMounts"]}
        for volume in volumes.values():
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps
            if "persistentVolumeClaim" in volume:
                assert volume["persistentVolumeClaim"]["claimName"] in claims


@each_manifest
def test_no_secret_is_in_a_manifest(manifest: Path) -> None:
    assert not list(of_kind(manifest, "Secret"))
    for _, template, container in pods(manifest):
        for variable in container.get("env", ()):
            assert "valueFrom" in variable and "value" not in variable
        for volume in template["spec"]["volumes"]:
            if "secret" in volume:
                assert volume["secret"]["defaultMode"] == 0o440


@each_manifest
def test_every_program_is_started_with_a_configuration_that_is_right(
    manifest: Path, tmp_path: Path
) -> None:
    maps = {tree["metadata"]["name"]: tree["data"] for tree in of_kind(manifest, "ConfigMap")}
    for _, template, container in pods(manifest):
        options = parsed(container["args"])
        given = Path(options.get("config_path") or options["config"])
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        (mount,) = (m for m in container["volumeMounts"] if m["mountPath"] == str(given.parent))
        text = maps[volumes[mount["name"]]["configMap"]["name"]][given.name]
        for path in re.findall(r'"(/run/secrets/[^"]*)"', text):
            assert path.rpartition("/")[0] in {m["mountPath"] for m in container["volumeMounts"]}
        file = tmp_path / given.name
        file.write_text(with_secrets_in(tmp_path, text))
        check_file(container["args"][0], file)


@each_manifest
def test_services_policies_and_probes_name_what_there_is(manifest: Path) -> None:
    by_labels = {}
    for name, template, container in pods(manifest):
        ports = {port["name"]: port for port in container["ports"]}
        by_labels[labels(template["metadata"]["labels"])] = ports
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["path"] in ("/healthz", "/readyz") and asked["port"] in ports, name
    for service in of_kind(manifest, "Service"):
        ports = matching(by_labels, service["spec"]["selector"])
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports)
    policies = list(of_kind(manifest, "NetworkPolicy"))
    assert len(policies) == len(by_labels)
    for policy in policies:
        ports = matching(by_labels, policy["spec"]["podSelector"]["matchLabels"])
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        for rule in policy["spec"]["ingress"]:
            for port in rule["ports"]:
                numbers = {known["containerPort"] for known in ports.values()}
                assert port["port"] in set(ports) | numbers


def labels(found: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(found.items())


def matching(pods: Mapping[frozenset[tuple[str, str]], Tree], selector: Mapping[str, str]) -> Tree:
    (ports,) = (ports for found, ports in pods.items() if labels(selector) <= found)
    return ports


def test_a_server_reaches_what_its_clients_may_ask_for_and_no_other_private_network() -> None:
    manifest = DEPLOY / "kubernetes" / "server.yaml"
    (policy,) = of_kind(manifest, "NetworkPolicy")
    (config,) = of_kind(manifest, "ConfigMap")
    blocks = [
        target["ipBlock"]
        for rule in policy["spec"]["egress"]
        for target in rule["to"]
        if "ipBlock" in target
    ]
    allowed = re.findall(r'^tcp = \["(.*)"\]$', config["data"]["server.toml"], re.M)
    world = [block for block in blocks if block["cidr"] == "0.0.0.0/0"]
    assert [block["cidr"] for block in blocks if block not in world] == ["2000::/3", *allowed]
    private = {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"}
    assert all(set(block["except"]) == private for block in world)


def test_the_version_of_the_chart_is_ours() -> None:
    chart = yaml.safe_load((DEPLOY / "helm" / "tunnel-rs" / "Chart.yaml").read_text())
    from tunnel_rs import __version__

    assert chart["appVersion"] == chart["version"] == __version__


def test_a_command_line_with_an_unknown_option_would_be_found() -> None:
    with pytest.raises(click.NoSuchOption):
        parsed(["relay", "--confg", "x"])
