# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the e2e tests. WEIR names the program under test (default: build/weir).

    gateway(upstream=..., limits=..., ...)    starts `weir run`; see weirtest/gateway.py, Gateway.start
    upstream(script=..., ...)                 starts a scriptable upstream; see weirtest/upstream.py
    guests.build("step"), guests.source("..") builds a filter; gives its path
    weir.run("check", ...)                    runs a subcommand
    echo()                                    starts `weir echo`; gives its port
module_gateway and module_upstream are the same for fixtures that live as long as a module."""
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from weirtest.client import fetch  # noqa: E402
from weirtest.gateway import Gateway, Weir  # noqa: E402
from weirtest.guests import ROOT, Guests  # noqa: E402
from weirtest.upstream import Upstream  # noqa: E402
from weirtest.util import free_port, wait_until  # noqa: E402

os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0:allocator_may_return_null=1")
os.environ.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1")
os.environ.setdefault("TSAN_OPTIONS",
                      f"report_signal_unsafe=0 suppressions={ROOT}/tests/unit/wasm/tsan.supp halt_on_error=0 exitcode=66")


# A real API server takes minutes to build once, so its tests run only where it is there (make test-kubernetes).
collect_ignore_glob = [] if os.environ.get("WEIR_KUBERNETES") else ["test_kubernetes*.py"]


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes more than about 5 s")
    config.addinivalue_line("markers", "guests: needs filters in other languages than C (make guests)")


@pytest.fixture(scope="session")
def weir(tmp_path_factory):
    """A copy, since a rebuild may replace the program while tests run."""
    program = pathlib.Path(os.environ.get("WEIR", ROOT / "build" / "weir"))
    assert program.exists(), f"{program} is not built"
    copy = tmp_path_factory.mktemp("program") / "weir"
    shutil.copy2(program, copy)
    return Weir(copy)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    """Shared, so that each module is compiled once."""
    path = tmp_path_factory.mktemp("modules")
    path.chmod(0o700)
    return path


@pytest.fixture(scope="session")
def guests(tmp_path_factory):
    return Guests(tmp_path_factory.mktemp("guests"))


@pytest.fixture(scope="session")
def built_guests():
    """The folder of the guests that want other toolchains than C's: examples and tests/guests. Mark tests that use it `guests`."""
    done = subprocess.run([ROOT / "tools/guests", "--with-tests", ROOT / "build/guests"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return ROOT / "build/guests"


class _Gateways:
    def __init__(self, weir, cache_dir, tmp_path_factory):
        self.weir, self.cache, self.tmp, self.started = weir, cache_dir, tmp_path_factory, []

    def __call__(self, upstream=None, start=True, cache=None, **options):
        g = Gateway(self.weir, self.tmp.mktemp("gateway"), cache or self.cache)
        self.started.append(g)
        return g.start(upstream, **options) if start else g

    def teardown(self):
        errors = []
        for g in self.started:
            try:
                g.teardown()
            except AssertionError as e:
                errors.append(str(e))
        assert not errors, "\n".join(errors)


class _Upstreams:
    def __init__(self):
        self.started = []

    def __call__(self, script=None, **options):
        self.started.append(Upstream(script, **options))
        return self.started[-1]

    def teardown(self):
        for u in self.started:
            u.stop()


def _gateways(weir, cache_dir, tmp_path_factory):
    factory = _Gateways(weir, cache_dir, tmp_path_factory)
    yield factory
    factory.teardown()


def _upstreams():
    factory = _Upstreams()
    yield factory
    factory.teardown()


@pytest.fixture
def gateway(weir, cache_dir, tmp_path_factory):
    yield from _gateways(weir, cache_dir, tmp_path_factory)


@pytest.fixture(scope="module")
def module_gateway(weir, cache_dir, tmp_path_factory):
    yield from _gateways(weir, cache_dir, tmp_path_factory)


@pytest.fixture
def upstream():
    yield from _upstreams()


@pytest.fixture(scope="module")
def module_upstream():
    yield from _upstreams()


@pytest.fixture
def echo(weir, tmp_path):
    """Starts `weir echo`; returns its port."""
    processes = []

    def start(*args):
        port = free_port()
        log = open(tmp_path / f"echo-{port}.log", "w")
        processes.append(subprocess.Popen(weir.command("echo", "--listen", f"127.0.0.1:{port}", *args), stdout=log, stderr=log))
        wait_until(lambda: fetch(port).status == 200, "weir echo")
        return port

    yield start
    for p in processes:
        p.terminate()
        assert p.wait(60) == 0, "weir echo does not end well"
