"""Certificates, kubeconfigs, remembered choices, command lines and progress lines."""

from __future__ import annotations

import io
import json
import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from energylens_dev.devcluster import DevClusterError, NodePool, PodStages, Progress, StreamProgress
from energylens_dev.devcluster.audit import AuditLog
from energylens_dev.devcluster.certificates import Authority, service_account_keys
from energylens_dev.devcluster.commands import PORT_NAMES, Files, audit_policy, command_lines
from energylens_dev.devcluster.folders import user_folder
from energylens_dev.devcluster.kubeconfig import client_certificate, kubeconfig, write_kubeconfig
from energylens_dev.devcluster.operators import chart_digest, check_chart
from energylens_dev.devcluster.ports import free_port, is_free
from energylens_dev.devcluster.stages import stage_files
from energylens_dev.devcluster.state import State, StateDirectory, default_directory


class FixedClock:
    def now(self) -> datetime:
        return datetime(2026, 6, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


def test_certificates_name_their_user_groups_and_hosts(tmp_path: Path) -> None:
    authority = Authority(tmp_path, FixedClock())
    certificate, key = authority.issue("a", "alice", organizations=["ops"], hosts=["127.0.0.1", "localhost"])
    loaded = x509.load_pem_x509_certificate(certificate.read_bytes())
    assert loaded.subject.rfc4514_string() == "O=ops,CN=alice"
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    loaded.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate_file.read_bytes()))
    assert loaded.not_valid_before_utc < FixedClock().now() < loaded.not_valid_after_utc
    ssl.create_default_context(cafile=str(authority.certificate_file)).load_cert_chain(certificate, key)
    assert key.stat().st_mode & 0o077 == 0


def test_certificates_have_the_key_identifiers_that_strict_clients_ask_for(tmp_path: Path) -> None:
    authority = Authority(tmp_path, FixedClock())
    leaf, _ = authority.issue("a", "alice", hosts=["127.0.0.1"])
    identifiers = []
    for path in (authority.certificate_file, leaf):
        extensions = x509.load_pem_x509_certificate(path.read_bytes()).extensions
        subject = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        issuer = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        identifiers.append((subject, issuer))
    (root, roots_issuer), (child, childs_issuer) = identifiers
    assert root == roots_issuer == childs_issuer != child


def test_certificates_and_keys_are_kept_for_the_next_start(tmp_path: Path) -> None:
    first = Authority(tmp_path, FixedClock()).issue("a", "alice")
    keys = service_account_keys(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert Authority(tmp_path, FixedClock()).issue("a", "alice") == first
    assert service_account_keys(tmp_path) == keys
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_kubeconfig_is_self_contained_and_private(tmp_path: Path) -> None:
    path = tmp_path / "kubeconfig"
    user = client_certificate(b"certificate", b"key")
    write_kubeconfig(path, kubeconfig("https://127.0.0.1:20001", b"authority", user, "mine"))
    assert path.stat().st_mode & 0o777 == 0o600
    written = yaml.safe_load(path.read_text())
    (context,) = [entry["context"] for entry in written["contexts"] if entry["name"] == written["current-context"]]
    (cluster,) = [entry["cluster"] for entry in written["clusters"] if entry["name"] == context["cluster"]]
    (found,) = [entry["user"] for entry in written["users"] if entry["name"] == context["user"]]
    assert context["namespace"] == "mine"
    assert cluster == {"server": "https://127.0.0.1:20001", "certificate-authority-data": "YXV0aG9yaXR5"}
    assert found == {"client-certificate-data": "Y2VydGlmaWNhdGU=", "client-key-data": "a2V5"}


def test_choices_are_remembered(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path)
    assert directory.load() == State()
    state = State(
        ports={"etcd": 20001},
        pods=PodStages.FAST,
        pools=(NodePool("NVIDIA-L4", 1, 1),),
        operator=True,
        operator_arguments=("--config=x",),
        chart="abc",
        programs={"kubectl": "/bin/kubectl"},
    )
    directory.save(state)
    assert directory.load() == state


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"ports": {"etcd": "x"}}'])
def test_a_damaged_state_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "state.json").write_text(content)
    with pytest.raises(DevClusterError, match=r"state\.json is damaged .*dev down --purge"):
        StateDirectory(tmp_path).load()


def test_purge_removes_its_own_files_only(tmp_path: Path) -> None:
    directory = StateDirectory(tmp_path / "cluster")
    with directory.locked(Progress()):
        directory.save(State())
        directory.pki.mkdir()
        (directory.path / "notes.txt").write_text("a user's")
        directory.component_kubeconfig("kwok").write_text("")
        directory.purge()
    assert [path.name for path in directory.path.iterdir()] == ["notes.txt"]


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DevClusterError, match=r"cannot use the state directory .*/file/cluster: Not a directory"),
        StateDirectory(tmp_path / "file" / "cluster").locked(Progress()),
    ):
        pass


def test_the_state_directory_follows_the_environment() -> None:
    assert default_directory({"HOME": "/h"}) == Path("/h/.local/state/energylens/dev")
    assert default_directory({"HOME": "/h", "XDG_STATE_HOME": "/s"}) == Path("/s/energylens/dev")
    assert default_directory({"HOME": "/h", "ENERGYLENS_DEV_DIR": "/d"}) == Path("/d")


def test_a_taken_port_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not is_free(server.getsockname()[1])
    port = free_port()
    assert is_free(port)
    assert free_port(taken=[port]) != port


def test_every_server_listens_on_loopback_with_tls_and_rbac(tmp_path: Path) -> None:
    ports = {name: 20000 + number for number, name in enumerate(PORT_NAMES)}
    pair = (tmp_path / "crt", tmp_path / "key")
    names = ("admin", "kube-controller-manager", "kube-scheduler", "kwok")
    files = Files(
        authority=tmp_path / "ca.crt",
        etcd=pair,
        server=pair,
        service_account=pair,
        kubeconfigs={name: tmp_path / name for name in names},
        etcd_data=tmp_path / "etcd",
        audit_policy=tmp_path / "policy",
        audit_log=tmp_path / "log",
        stages=[tmp_path / "stage.yaml"],
    )
    programs = {name: Path(f"/bin/{name}") for name in ("etcd", "kube-apiserver", *names[1:])}
    lines = command_lines(programs, ports, files)
    assert "--authorization-mode=RBAC" in lines["kube-apiserver"]
    assert f"--audit-log-path={tmp_path / 'log'}" in lines["kube-apiserver"]
    for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler"):
        assert "--bind-address=127.0.0.1" in lines[name]
        assert f"--tls-cert-file={pair[0]}" in lines[name]
        assert f"--secure-port={ports[name]}" in lines[name]
    assert "--client-cert-auth" in lines["etcd"]
    assert "http://" not in " ".join(lines["etcd"])
    for name in ("kube-controller-manager", "kube-scheduler"):
        assert {"--kube-api-qps=500", "--kube-api-burst=1000", "--leader-elect=false"} <= set(lines[name])
    assert f"--server-address=127.0.0.1:{ports['kwok']}" in lines["kwok"]


def test_the_audit_policy_keeps_every_write_of_users_and_drops_reads() -> None:
    rules = audit_policy()["rules"]
    kept = [rule for rule in rules if rule["level"] == "Metadata"]
    assert {"verbs": ["create", "update", "patch", "delete", "deletecollection"], "level": "Metadata"} in kept
    assert rules[-1] == {"level": "None"}
    assert [rule["users"] for rule in rules if rule["level"] == "None" and "users" in rule] == [
        ["system:kwok-controller"]
    ]


def event(user: str, verb: str, *, code: int = 200, namespace: str = "a", stage: str = "ResponseComplete") -> str:
    target = {"resource": "pods", "namespace": namespace, "name": "p"}
    status = {"code": code}
    data = {"user": {"username": user}, "verb": verb, "objectRef": target, "responseStatus": status, "stage": stage}
    return json.dumps(data) + "\n"


def test_writes_are_counted_from_a_moment_on(tmp_path: Path) -> None:
    path = tmp_path / "audit.log"
    path.write_text(event("me", "create"))
    log = AuditLog(path)
    with path.open("a") as file:
        file.write(event("me", "patch") + event("me", "get") + event("me", "create", code=409))
        file.write(event("me", "delete", namespace="b") + event("you", "create") + event("me", "watch", stage="x"))
        file.write(event("system:serviceaccount:n:op", "update") + '{"half')
    assert [(e.verb, e.namespace) for e in log.writes("me")] == [("patch", "a"), ("delete", "b")]
    assert [e.verb for e in log.writes("me", namespace="b")] == ["delete"]
    assert [e.verb for e in log.writes("system:serviceaccount:n:")] == ["update"]
    path.write_text("")
    with pytest.raises(ValueError, match="was rotated"):
        log.events()


def test_the_chart_digest_follows_names_and_contents(tmp_path: Path) -> None:
    with pytest.raises(DevClusterError, match=r"has no Chart\.yaml"):
        check_chart(tmp_path)
    (tmp_path / "Chart.yaml").write_text("a")
    check_chart(tmp_path)
    first = chart_digest(tmp_path)
    (tmp_path / "templates").mkdir()
    assert chart_digest(tmp_path) == first
    (tmp_path / "templates" / "b.yaml").write_text("b")
    second = chart_digest(tmp_path)
    (tmp_path / "templates" / "b.yaml").rename(tmp_path / "templates" / "c.yaml")
    assert len({first, second, chart_digest(tmp_path)}) == 3


def test_pods_are_fast_or_life_like_and_chaos_is_always_there(tmp_path: Path) -> None:
    for name in (
        "node/fast/a",
        "pod/fast/b",
        "pod/general/c",
        "pod/chaos/d",
        "volume/fast/e",
        "volume/fast/storage-class",
    ):
        file = tmp_path / "stage" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    (tmp_path / "stage/pod/fast/kustomization.yaml").write_text("")

    def names(pods: PodStages) -> list[str]:
        return [path.stem for path in stage_files(tmp_path, pods)]

    assert names(PodStages.FAST) == ["a", "b", "d", "e"]
    assert names(PodStages.LIFE_LIKE) == ["a", "c", "d", "e"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_plain_lines_outside_a_terminal() -> None:
    stream = io.StringIO()
    seconds = iter([0.0, 12.4])
    with StreamProgress(stream, lambda: next(seconds)).step("building etcd") as tick:
        tick()
    assert stream.getvalue() == "building etcd ...\nbuilding etcd: 12 s\n"


def test_progress_is_one_line_that_counts_seconds_on_a_terminal() -> None:
    stream = Terminal()
    seconds = iter([0.0, 1.0, 2.0])
    with StreamProgress(stream, lambda: next(seconds)).step("building etcd") as tick:
        tick()
    assert stream.getvalue() == "\rbuilding etcd ... 1 s\x1b[K\rbuilding etcd ... 2 s\x1b[K\n"


def test_an_interrupted_step_ends_its_line() -> None:
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), StreamProgress(stream, lambda: 0.0).step("building etcd"):
        raise KeyboardInterrupt
    assert stream.getvalue().endswith(" (stopped)\n")


def test_a_user_without_a_home_directory_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: object) -> object:
        raise KeyError("getpwuid(): uid not found: 65532")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    with pytest.raises(DevClusterError, match="set HOME or XDG_CACHE_HOME"):
        user_folder({}, "XDG_CACHE_HOME", ".cache")
    assert user_folder({"XDG_CACHE_HOME": "/c"}, "XDG_CACHE_HOME", ".cache") == Path("/c")
