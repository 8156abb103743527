# SPDX-License-Identifier: Apache-2.0
"""weir push and weir pull against Debian's docker-registry, and everything that users and their tools push."""
import base64
import hashlib
import json
import os
import pathlib
import re
import subprocess

import pytest

from weirtest import resources as res
from weirtest.registry import INDEX, OCI, Buildah, Registry, tar_of
from weirtest.util import LOCAL, free_port

WASM = b"\0asm\1\0\0\0" + b"\0\x05\x01x123"
TAR, GZIP, ZSTD = (f"application/vnd.oci.image.layer.v1.tar{x}" for x in ("", "+gzip", "+zstd"))


@pytest.fixture
def registry(tmp_path):
    made = []

    def make(**more):
        made.append(Registry(tmp_path / f"registry{len(made)}", **more))
        return made[-1]
    yield make
    for r in made:
        r.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    r = Registry(tmp_path_factory.mktemp("shared") / "registry")
    yield r
    r.stop()


class Cli:
    def __init__(self, weir, directory):
        self.weir, self.directory, self.config = weir, directory, directory / "docker"
        self.config.mkdir()
        self.wasm, self.out = directory / "in.wasm", directory / "out.wasm"
        self.wasm.write_bytes(WASM)
        self.path = os.environ["PATH"]

    def login(self, **doc):
        (self.config / "config.json").write_text(json.dumps(doc))

    def run(self, *args):
        return self.weir.run(*args, env={"PATH": self.path, "HOME": str(self.directory), "DOCKER_CONFIG": str(self.config)})

    def push(self, ref, *more):
        """The digest it prints."""
        got = self.run("push", *more, self.wasm, ref)
        assert got.returncode == 0, got
        return re.match(r"digest: (sha256:[0-9a-f]{64})\nhttps?://\S+\n$", got.stdout)[1]

    def pull(self, ref, *more):
        self.out.unlink(missing_ok=True)
        got = self.run("pull", "-o", self.out, *more, ref)
        assert got.returncode == 0, got
        assert self.out.read_bytes() == self.wasm.read_bytes()
        return re.match(r"digest: (sha256:[0-9a-f]{64})\n", got.stdout)[1]

    def fails(self, *args, says, code=1):
        got = self.run(*args)
        assert got.returncode == code and re.search(says, got.stderr), got
        assert got.stdout == ""


@pytest.fixture
def cli(weir, tmp_path):
    return Cli(weir, tmp_path)


def auth(user, password):
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


# ---- round trips ----

@pytest.mark.parametrize("layout", ["image", "artifact"])
def test_round_trip(cli, shared, layout):
    ref = f"{shared.host}/round/trip-{layout}:v1"
    digest = cli.push(ref, "--layout", layout, "--annotation", "a=b=c", "--annotation", "org.opencontainers.image.title=x")
    assert cli.push(ref, "--layout", layout, "--annotation", "a=b=c", "--annotation", "org.opencontainers.image.title=x") == digest
    assert cli.pull(ref) == digest
    assert cli.pull(f"{shared.host}/round/trip-{layout}@{digest}") == digest
    status, headers, body = shared.request("GET", f"/v2/round/trip-{layout}/manifests/v1", headers={"accept": OCI})
    assert status == 200 and headers["docker-content-digest"] == digest == "sha256:" + hashlib.sha256(body).hexdigest()
    doc = json.loads(body)
    assert doc["annotations"] == {"a": "b=c", "org.opencontainers.image.title": "x"}
    assert doc["layers"][0]["mediaType"] == (GZIP if layout == "image" else "application/wasm")


def test_pieces(cli, shared):
    cli.wasm.write_bytes(b"\0asm\1\0\0\0" + os.urandom(1_000_000))
    assert cli.push(f"{shared.host}/pieces:1", "--chunk-size", "64Ki") == cli.push(f"{shared.host}/whole:1")
    cli.pull(f"{shared.host}/pieces:1")
    cli.wasm.write_bytes(b"\0asm\1\0\0\0" + os.urandom(2 * 65536 - 8))  # no rest
    cli.push(f"{shared.host}/pieces:2", "--chunk-size", "64Ki", "--layout", "artifact")
    cli.pull(f"{shared.host}/pieces:2")


def test_other_tools_read_what_push_makes(cli, shared, tmp_path):
    ref = f"{shared.host}/tools:1"
    digest = cli.push(ref)
    Buildah(tmp_path / "buildah").pull(ref)
    inspect = subprocess.run(["skopeo", "inspect", "--tls-verify=false", f"docker://{ref}"], capture_output=True, text=True, timeout=120)
    assert inspect.returncode == 0, inspect.stderr
    assert json.loads(inspect.stdout)["Digest"] == digest


def test_registry_option_and_default_file_name(cli, shared):
    cli.push("my-registry/team/my-wasm-filter:latest", "--registry", f"my-registry=http://{shared.host}/sub")
    assert cli.pull(f"{shared.host}/sub/team/my-wasm-filter:latest") == cli.pull("oci://my-registry/team/my-wasm-filter", f"--registry=my-registry=http://{shared.host}/sub")
    got = cli.weir.run("pull", f"{shared.host}/sub/team/my-wasm-filter", cwd=cli.directory)
    assert got.returncode == 0 and (cli.directory / "my-wasm-filter.wasm").read_bytes() == WASM
    binary = subprocess.run([cli.weir.program, "pull", "-o", "-", f"{shared.host}/sub/team/my-wasm-filter"], capture_output=True, timeout=60)
    assert binary.stdout == WASM and b"digest: sha256:" in binary.stderr


def test_usage_and_failures(cli, shared, tmp_path):
    ref = f"{shared.host}/x:1"
    for args, says in [((), "which file"), ((cli.wasm,), "which file"), ((cli.wasm, ref, "more"), "not also more"), ((cli.wasm, "Upper/Case:1:2"), "reference"),
                       ((cli.wasm, ref, "--layout", "zip"), "image or artifact"), ((cli.wasm, ref, "--annotation", "x"), "KEY=VALUE"),
                       ((cli.wasm, ref, "--chunk-size", "7"), "64Ki"), ((cli.wasm, ref, "--nope"), "no option --nope"), ((cli.wasm, ref, "--registry", "x"), "NAME=URL")]:
        cli.fails("push", *args, says=says, code=2)
    cli.fails("pull", says="which image", code=2)
    cli.fails("pull", ref, "--registries", tmp_path / "absent", says="absent", code=2)
    cli.fails("push", tmp_path / "absent", ref, says="No such file")
    (tmp_path / "text").write_text("no module")
    cli.fails("push", tmp_path / "text", ref, says="not a Wasm module")
    cli.fails("pull", f"{shared.host}/never/there:1", says=r"NotFound: .*404: (NAME|MANIFEST)_UNKNOWN")
    cli.fails("pull", f"{LOCAL}:{free_port()}/x", says="FetchFailed: .*onnect")
    cli.fails("push", cli.wasm, f"{LOCAL}:{free_port()}/x", says="FetchFailed: .*onnect")
    cli.fails("pull", "-o", tmp_path / "no" / "dir", f"{shared.host}/x:1", says="NotFound")
    cli.push(ref)
    cli.fails("pull", "-o", tmp_path / "no" / "dir", ref, says="No such file")
    for command in ("push", "pull"):
        assert f"usage: weir {command}" in cli.run(command, "--help").stdout


# ---- who is let in ----

def test_basic(cli, registry):
    r = registry(auth="basic")
    ref = f"{r.host}/x:1"
    cli.fails("push", cli.wasm, ref, says="Unauthorized: .*a user and a password")
    cli.login(auths={r.host: auth("u", "wrong")})
    cli.fails("push", cli.wasm, ref, says="Unauthorized: .*401")
    cli.login(auths={r.host: auth("u", "p")})
    assert cli.push(ref) == cli.pull(ref)


def test_credential_helper(cli, registry):
    r = registry(auth="basic")
    bin_dir = cli.directory / "bin"
    bin_dir.mkdir()
    helper = bin_dir / "docker-credential-mine"
    helper.write_text('#!/bin/sh\nread host\n[ "$1 $host" = "get %s" ] && echo \'{"Username":"u","Secret":"p"}\'\n' % r.host)
    helper.chmod(0o755)
    cli.path = f"{bin_dir}:{cli.path}"
    cli.login(credHelpers={r.host: "mine"})
    assert cli.push(f"{r.host}/x:1") == cli.pull(f"{r.host}/x:1")
    cli.login(credsStore="mine")
    cli.pull(f"{r.host}/x:1")
    cli.login(credsStore="absent")
    cli.fails("pull", f"{r.host}/x:1", says="cannot run docker-credential-absent")


def test_tokens(cli, registry):
    r = registry(auth="token")
    cli.fails("push", cli.wasm, f"{r.host}/public/x:1", says="Unauthorized")
    cli.login(auths={r.host: auth("u", "p")})
    digest = cli.push(f"{r.host}/public/x:1")
    cli.push(f"{r.host}/private/x:1")
    assert cli.pull(f"{r.host}/private/x:1") == digest
    cli.login(auths={r.host: auth("u", "wrong")})
    cli.fails("pull", f"{r.host}/private/x:1", says="Unauthorized: .*token.*401.*wrong password")
    cli.login()
    assert cli.pull(f"{r.host}/public/x:1") == digest  # anonymous
    cli.fails("pull", f"{r.host}/private/x:1", says="Unauthorized")
    cli.login(auths={r.host: {"identitytoken": r.tokens.refresh_token}})
    assert cli.pull(f"{r.host}/private/x:1") == digest
    assert r.tokens.asked[-1][0] == "POST"


def test_tls(cli, registry, tmp_path):
    r = registry(tls=True, auth="basic")
    cli.login(auths={r.host: auth("u", "p"), "localhost": auth("u", "wrong")})
    table = tmp_path / "registries"
    table.write_text(f"# one a line\nprivate https://{r.host} ca={r.ca}\nunknown https://{r.host}\nloose https://{r.host} insecure\n")
    digest = cli.push("private/x:1", "--registries", table)
    assert cli.pull("private/x:1", "--registries", table) == digest
    cli.fails("pull", "unknown/x:1", "--registries", table, says="FetchFailed: .*certificate")
    assert cli.pull("loose/x:1", "--registries", table) == digest
    # loopback: http first, then https, as it is without a table
    assert cli.pull(f"{r.host}/x:1") == digest
    (tmp_path / "password").write_text("p\n")
    table.write_text(f"private https://{r.host} ca={r.ca} user=u password-file={tmp_path}/password\n")
    cli.login()
    assert cli.pull("private/x:1", "--registries", table) == digest


def test_mirrors(cli, shared):
    cli.push(f"{shared.host}/library/mirrored:1")
    got = cli.run("pull", "-o", cli.out, "--registry", f"docker.io=http://{LOCAL}:{free_port()}", "--registry", f"docker.io=http://{shared.host}", "mirrored:1")
    assert got.returncode == 0 and f"http://{shared.host}/library/mirrored:1" in got.stdout, got


# ---- what others push ----

def pushes(r):
    gz = lambda b: __import__("gzip").compress(b, mtime=0)
    tar, other = tar_of([("plugin.wasm", WASM)]), tar_of([("etc/x", b"hi")])
    zstd = subprocess.run(["zstd", "-q", "-c"], input=tar, capture_output=True, check=True).stdout
    yaml = ("application/vnd.module.wasm.spec.v1+yaml", b"a: b", None)
    return {
        "oci": lambda: r.artifact("p", "oci", [(GZIP, gz(tar), None)], "application/vnd.oci.image.config.v1+json"),
        "docker": lambda: r.artifact("p", "docker", [("application/vnd.docker.image.rootfs.diff.tar.gzip", gz(tar), None)], "application/vnd.docker.container.image.v1+json"),
        "plain-tar": lambda: r.artifact("p", "plain-tar", [(TAR, tar, None)]),
        "zstd": lambda: r.artifact("p", "zstd", [(ZSTD, zstd, None)]),
        "lower-layer": lambda: r.artifact("p", "lower-layer", [(GZIP, gz(tar), None), (GZIP, gz(other), None)]),
        "any-name": lambda: r.artifact("p", "any-name", [(TAR, tar_of([("opt/my.wasm", WASM), ("opt/readme", b"x")]), None)]),
        "two-layers": lambda: r.artifact("p", "two-layers", [("application/vnd.module.wasm.content.layer.v1+wasm", WASM, None), ("application/vnd.module.wasm.config.v1+json", b"{}", None)]),
        "three-layers": lambda: r.artifact("p", "three-layers", [yaml, ("application/vnd.oci.image.layer.v1.tar+gzip", gz(other), None), ("application/vnd.module.wasm.content.layer.v1+wasm", WASM, None)]),
        "wasm-to-oci": lambda: r.artifact("p", "wasm-to-oci", [("application/vnd.wasm.content.layer.v1+wasm", WASM, None)], "application/vnd.wasm.config.v1+json"),
        "cncf": lambda: r.artifact("p", "cncf", [("application/wasm", WASM, None)], "application/vnd.wasm.config.v0+json"),
        "oras-title": lambda: r.artifact("p", "oras-title", [("application/octet-stream", WASM, {"org.opencontainers.image.title": "dist/my-filter.wasm"})]),
        "oras-type": lambda: r.artifact("p", "oras-type", [("application/vnd.oci.image.layer.v1", WASM, None)], artifactType="application/vnd.example.wasm"),
        "gzipped-module": lambda: r.artifact("p", "gzipped-module", [("application/wasm", gz(tar), None)]),
    }


NAMES = sorted(pushes(None))


@pytest.mark.parametrize("name", NAMES)
def test_layouts(cli, shared, name):
    digest = pushes(shared)[name]()
    assert cli.pull(f"{shared.host}/p:{name}") == digest


def test_index(cli, shared):
    empty = shared.artifact("ix", None, [(TAR, tar_of([("bin/app", b"elf")]), None)])
    wasm = shared.artifact("ix", None, [("application/wasm", WASM, None)])
    def child(digest, os_, arch):
        body = shared.request("GET", f"/v2/ix/manifests/{digest}", headers={"accept": OCI})[2]
        return {"mediaType": OCI, "digest": digest, "size": len(body), "platform": {"os": os_, "architecture": arch}}
    index = shared.manifest("ix", "1", {"manifests": [child(empty, "linux", "amd64"), child(wasm, "wasip1", "wasm")]}, INDEX)
    got = cli.run("pull", "-o", cli.out, f"{shared.host}/ix:1")
    assert got.returncode == 0 and got.stdout.startswith(f"digest: {wasm}\nindex: {index}\n"), got
    assert cli.pull(f"{shared.host}/ix@{index}") == wasm
    cli.fails("pull", f"{shared.host}/ix@{empty}", says="NoModule: .*no plugin.wasm")


def test_buildah(cli, shared, tmp_path):
    context = tmp_path / "context"
    context.mkdir()
    (context / "plugin.wasm").write_bytes(WASM)
    (context / "Dockerfile").write_text("FROM scratch\nCOPY plugin.wasm ./plugin.wasm\n")
    b = Buildah(tmp_path / "buildah")
    b.build(context, "my-wasm-filter")
    for tag, options in [("oci", ()), ("docker", ("--format", "v2s2"))]:
        b.push("my-wasm-filter", f"{shared.host}/buildah/{tag}:latest", *options)
        cli.pull(f"{shared.host}/buildah/{tag}:latest")


def test_pushed_by_weir_and_served(gateway, upstream, cli, shared, guests):
    cli.wasm = pathlib.Path(guests.build("counter"))
    for layout in ("image", "artifact"):
        digest = cli.push(f"{shared.host}/served/{layout}:1", "--layout", layout)
        g = gateway(upstream(lambda x: (x.body(), x.respond(200))), extra=[res.plugin("p", f"oci://{shared.host}/served/{layout}:1", sha256=digest[7:])])
        assert g.wait_plugin("p", stage="Programmed")["digest"] == digest
        assert g.get().status == 200
