# SPDX-License-Identifier: Apache-2.0
"""What registries do not get, and what they cannot make Weir do."""
import base64
import json
import os

import pytest

from weirtest.registries import ScriptedRegistry

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
