# SPDX-License-Identifier: Apache-2.0
"""Processes that never outlive the bench, and what /proc knows of them.

Every child is the leader of a session of its own and dies with us (PDEATHSIG), whatever ends us. CPU time and memory
are those of a process and all its descendants, so that a master with a worker costs what both cost.
"""

import ctypes
import os
import signal
import socket
import subprocess
import time

PR_SET_PDEATHSIG = 1
TICK = os.sysconf("SC_CLK_TCK")
CLEAN_ENDS = (0, -signal.SIGTERM, 128 + signal.SIGTERM)
LIBC = ctypes.CDLL(None, use_errno=True)


class BenchError(Exception):
    """Something that makes the numbers wrong: said aloud, never worked round."""


def free_port(taken=set()):
    """A port of 127.0.0.1 below the ephemeral range, so that no outgoing connection can take it meanwhile."""
    for port in range(18000, 30000):
        if port in taken:
            continue
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        taken.add(port)
        return port
    raise BenchError("no free port on 127.0.0.1")


def read_stat(pid):
    """(parent, CPU ticks with those of the children it has waited for), or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
            fields = f.read().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), sum(int(x) for x in fields[11:15])


def tree(root):
    """{pid: ticks} of a process and its descendants."""
    stats = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := read_stat(name)):
            stats[int(name)] = stat
    found, queue = {}, [root]
    while queue:
        pid = queue.pop()
        if pid in stats and pid not in found:
            found[pid] = stats[pid][1]
            queue += [child for child, (parent, _) in stats.items() if parent == pid]
    return found


def cpu_seconds(root):
    return sum(tree(root).values()) / TICK


def memory_kib(root):
    """(RSS, PSS) of the tree. PSS counts a page shared by n processes as 1/n in each."""
    rss = pss = 0
    for pid in tree(root):
        rss += read_kib(f"/proc/{pid}/status", "VmRSS:")
        pss += read_kib(f"/proc/{pid}/smaps_rollup", "Pss:")
    return rss, pss


def read_kib(path, key):
    try:
        with open(path, encoding="ascii", errors="replace") as f:
            for line in f:
                if line.startswith(key):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


def machine_busy_seconds():
    """CPU seconds that the whole machine has spent on anything, time stolen by its host included."""
    with open("/proc/stat", encoding="ascii") as f:
        user, nice, system, _idle, _iowait, irq, softirq, steal = (int(x) for x in f.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICK


class Processes:
    """The children of one run; a context manager that stops them all."""

    def __init__(self, log_dir):
        self.log_dir = log_dir
        self.children = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for child in self.children:
            signal_group(child, signal.SIGTERM)
        limit = time.monotonic() + 3
        for child in self.children:
            try:
                child.wait(max(0.05, limit - time.monotonic()))
            except subprocess.TimeoutExpired:
                pass
            signal_group(child, signal.SIGKILL)
            child.wait()

    def start(self, name, argv, cores=None, stdout=None, env=None):
        """Starts argv on these cores. Its output goes to log_dir/NAME.log, or what it says on stdout elsewhere."""
        parent = os.getpid()

        def in_child():
            # SIGTERM, not SIGKILL: a master process takes its workers with it.
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)
            if cores:
                os.sched_setaffinity(0, cores)

        with open(self.log_path(name), "wb") as log:
            child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=stdout or log, stderr=log, env=env,
                                     start_new_session=True, preexec_fn=in_child)
        child.bench_name = name
        self.children.append(child)
        return child

    def stop(self, child):
        """Ends a child; returns what is wrong with how it ended, "" if nothing."""
        early = child.poll() is not None
        signal_group(child, signal.SIGTERM)
        late = False
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            late = True
        signal_group(child, signal.SIGKILL)
        child.wait()
        self.children.remove(child)
        if early or late:
            return "had ended before it was told to" if early else "did not end within 5 s of SIGTERM"
        return "" if child.returncode in CLEAN_ENDS else f"ended with status {child.returncode} on SIGTERM"

    def log_path(self, name):
        return os.path.join(self.log_dir, name + ".log")

    def log_tail(self, name, lines=15):
        with open(self.log_path(name), encoding="utf-8", errors="replace") as f:
            return "".join("    " + line for line in f.readlines()[-lines:])

    def wait_for_port(self, child, port, seconds=20):
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if child.poll() is not None:
                raise BenchError(f"{child.bench_name} ended at once (status {child.returncode}):\n"
                                 f"{self.log_tail(child.bench_name)}")
            with socket.socket() as s:
                s.settimeout(1)
                if s.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
        raise BenchError(f"{child.bench_name} does not listen on port {port} after {seconds} s:\n"
                         f"{self.log_tail(child.bench_name)}")


def signal_group(child, number):
    try:
        os.killpg(child.pid, number)
    except (ProcessLookupError, PermissionError):
        pass
