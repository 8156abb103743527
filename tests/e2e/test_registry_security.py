# SPDX-License-Identifier: Apache-2.0
"""What registries do not get, and what they cannot make Weir do."""
import base64
import json
import os
import socket
import threading

import pytest

from weirtest.registries import ScriptedRegistry
from weirtest.util import LOCAL

WASM = b"\0asm\1\0\0\0"


@pytest.fixture
def registry():
    r = ScriptedRegistry(user="u", password="right")
    yield r
    r.stop()


@pytest.fixture
def docker_config(tmp_path):
    def make(**auths):
        d = tmp_path / "docker"
        d.mkdir(exist_ok=True)
        (d / "config.json").write_text(json.dumps({"auths": {
            host: {"auth": base64.b64encode(f"u:{password}".encode()).decode()} for host, password in auths.items()}}))
        return d
    return make


def weir_cli(weir, config, *args):
    return weir.run(*args, env={**os.environ, "DOCKER_CONFIG": str(config)})


def authorizations(registry):
    return {a.authorization for a in registry.asked} - {None}


def test_docker_hubs_password_stays_with_docker_hub(weir, registry, docker_config, tmp_path):
    """A word of the registry table is no name of Docker Hub's, whatever is asked of it."""
    registry.push("filter", "v1", WASM)
    (tmp_path / "m.wasm").write_bytes(WASM)
    assert weir.run("sign", "--generate-key", tmp_path / "k").returncode == 0
    config = docker_config(**{"https://index.docker.io/v1/": "hub"})
    table = ["--registry", f"my-registry=http://{registry.host}"]
    for args in (["pull", "-o", tmp_path / "out.wasm"], ["push", tmp_path / "m.wasm"], ["sign", "--key", tmp_path / "k.key"]):
        got = weir_cli(weir, config, *args, "my-registry/filter:v1", *table)
        assert got.returncode == 1 and "Unauthorized" in got.stderr, got
    assert authorizations(registry) == set()


def test_each_word_has_its_own_password(weir, registry, docker_config, tmp_path):
    registry.push("filter", "v1", WASM)
    config = docker_config(**{"https://index.docker.io/v1/": "hub", "my-registry": "right"})
    got = weir_cli(weir, config, "pull", "-o", tmp_path / "out.wasm", "my-registry/filter:v1", "--registry", f"my-registry=http://{registry.host}")
    assert got.returncode == 0, got
    assert (tmp_path / "out.wasm").read_bytes() == WASM
    assert authorizations(registry) == {registry.authorization}


def test_a_blob_elsewhere_gets_no_password(weir, registry, docker_config, tmp_path):
    """Registries send to storage on other hosts; another port is another host."""
    storage = ScriptedRegistry()
    try:
        registry.push("filter", "v1", WASM)
        storage.push("filter", "v1", WASM)

        def away(h):
            h.answer(307, headers={"location": f"http://{storage.host}{h.path}"})
            return True
        registry.spoil("blob", away)
        config = docker_config(**{registry.host: "right", storage.host: "right"})
        got = weir_cli(weir, config, "pull", "-o", tmp_path / "out.wasm", f"{registry.host}/filter:v1")
        assert got.returncode == 0, got
        assert storage.count("blob") == 1 and authorizations(storage) == set()
        assert authorizations(registry) == {registry.authorization}
    finally:
        storage.stop()


@pytest.mark.parametrize("realm", ["file:///etc/passwd", "ftp://127.0.0.1/", "http://169.254.169.254/token", "http://[::ffff:169.254.169.254]/token", "//x", ""])
def test_realms_that_are_none(weir, registry, docker_config, tmp_path, realm):
    def challenge(h):
        h.answer(401, headers={"www-authenticate": f'Bearer realm="{realm}",service="x"'})
        return True
    registry.authorization = None
    registry.spoil("manifest", challenge)
    config = docker_config(**{registry.host: "right"})
    got = weir_cli(weir, config, "pull", "-o", tmp_path / "out.wasm", f"{registry.host}/filter:v1")
    assert got.returncode == 1 and got.stderr.startswith("weir pull: Refused: "), got
    assert "right" not in got.stderr


def test_what_a_registry_says_is_escaped(weir, registry, docker_config, tmp_path):
    def say(h):
        h.answer(403, json.dumps({"errors": [{"code": "DENIED", "message": "a\n\x1b[31mweir: fine"}]}).encode())
        return True
    registry.authorization = None
    registry.spoil("manifest", say)
    got = weir_cli(weir, docker_config(), "pull", "-o", tmp_path / "out.wasm", f"{registry.host}/filter:v1")
    assert got.returncode == 1 and "Forbidden" in got.stderr and "\x1b" not in got.stderr and got.stderr.count("\n") == 1, got


def test_why_it_failed_is_not_hidden_by_the_other_way(weir, docker_config, tmp_path):
    """Loopback is asked over http first and over https when that does not work: what http said is what was wrong."""
    with socket.create_server((LOCAL, 0)) as s:
        def answer():
            while True:
                try:
                    c, _ = s.accept()
                except OSError:
                    return
                with c:
                    c.recv(65536)
                    try:
                        c.sendall(b"HTTP/1.1 200 OK\r\n" + 40 * (b"x: " + 4000 * b"y" + b"\r\n"))
                        c.recv(65536)
                    except OSError:
                        pass
        t = threading.Thread(target=answer, daemon=True)
        t.start()
        got = weir_cli(weir, docker_config(), "pull", "-o", tmp_path / "out.wasm", f"{LOCAL}:{s.getsockname()[1]}/filter:v1")
        s.shutdown(socket.SHUT_RDWR)
        t.join()
    assert got.returncode == 1 and "the answer's head is larger than" in got.stderr, got
