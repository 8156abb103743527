# SPDX-License-Identifier: Apache-2.0
"""The README's commands print what the README says. A block that begins with ```console is a terminal: lines after "$ " are run in
order, what follows is what they print, and "..." stands for anything."""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import time

import pytest

# The quickstart's ports are fixed: these tests share one worker.
pytestmark = pytest.mark.xdist_group("readme")

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORTS = (10080, 10081, 15000)


def blocks(marker):
    text = (ROOT / "README.md").read_text()
    return re.findall(r"^```" + re.escape(marker) + r"\n(.*?)^```", text, re.M | re.S)


def pattern(expected):
    parts = [re.escape(part) for part in expected.strip().split("...")]
    return re.compile(r"\s*" + ".*?".join(parts) + r"\s*\Z", re.S)


def commands(block):
    for chunk in re.split(r"^\$ ", block, flags=re.M)[1:]:
        command, _, expected = chunk.partition("\n")
        yield command, expected


def port_is_free(port):
    import socket

    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """`make run` as it stands, in a copy of the tree's layout that holds only what it reads."""
    busy = [p for p in PORTS if not port_is_free(p)]
    assert not busy, f"the quickstart's ports {busy} are taken by something else on this machine"
    home = tmp_path_factory.mktemp("readme")
    for name in ("tools", "examples", "sdk"):
        os.symlink(ROOT / name, home / name)
    (home / "build" / "guests").mkdir(parents=True)
    weir = os.environ.get("WEIR", str(ROOT / "build" / "weir"))
    os.symlink(weir, home / "build" / "weir")
    shutil.copy(ROOT / "build" / "guests" / "api_key.wasm", home / "build" / "guests" / "api_key.wasm")
    log = open(home / "out", "w")
    process = subprocess.Popen(
        ["/usr/bin/python3", str(home / "tools" / "quickstart")],
        cwd=home, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        env={**os.environ, "WEIR_ROOT": str(home), "PYTHONUNBUFFERED": "1"},
    )
    try:
        deadline = time.monotonic() + 120
        while "status\n" not in (home / "out").read_text():
            assert process.poll() is None and time.monotonic() < deadline, (home / "out").read_text()
            time.sleep(0.05)
        yield home
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


def test_quickstart_prints_what_the_readme_shows(quickstart):
    (expected,) = blocks("console quickstart")
    printed = (quickstart / "out").read_text().split("The gateway stays up")[0]
    assert pattern(expected).match(printed), printed


def test_tour_prints_what_the_readme_shows(quickstart):
    ran = 0
    for block in blocks("console"):
        for command, expected in commands(block):
            # An edit acts within milliseconds, but not before the next command can start: wait for the answer, not for time.
            deadline = time.monotonic() + 60
            while True:
                done = subprocess.run(["bash", "-c", command.replace("curl ", "curl -sS ")], cwd=quickstart, capture_output=True, text=True)
                printed = done.stdout.replace("\r", "") + done.stderr
                if pattern(expected).match(printed) or time.monotonic() > deadline:
                    break
                time.sleep(0.1)
            assert pattern(expected).match(printed), f"$ {command}\n{printed}"
            ran += 1
    assert ran >= 12


def test_every_linked_file_exists():
    text = (ROOT / "README.md").read_text()
    links = [t for t in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text) if "://" not in t]
    assert links
    assert not [t for t in links if not (ROOT / t).exists()]
