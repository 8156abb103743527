# SPDX-License-Identifier: Apache-2.0
"""Modules from registries: pull policies counted request by request, what is remembered, credentials, signatures,
registries that misbehave, and swaps under load."""
import hashlib
import pathlib
import subprocess
import threading

import pytest

from weirtest import resources as res
from weirtest.load import Load
from weirtest.marked import Marked
from weirtest.registries import DockerRegistry, ScriptedRegistry, digest_of, pull_secret
from weirtest.util import LOCAL, free_port, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Editions:
    """The same filter in other bytes."""

    def __init__(self, guests):
        self.guests, self.text = guests, (ROOT / "tests/guests/counter.c").read_text()

    def __getitem__(self, n):
        return self.guests.source(self.text + f"\nPW_EXPORT(\"edition\") int edition(void); int edition(void) {{ return {n}; }}\n", "counter_edition")

    def sha256(self, n):
        return hashlib.sha256(self[n].read_bytes()).hexdigest()

    def layer(self, n):
        return digest_of(self[n].read_bytes())


@pytest.fixture
def editions(guests):
    return Editions(guests)


@pytest.fixture
def own_cache(tmp_path):
    path = tmp_path / "cache"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def scripted():
    made = []

    def make(**more):
        made.append(ScriptedRegistry(**more))
        return made[-1]
    yield make
    for r in made:
        r.stop()


@pytest.fixture
def docker_registry(tmp_path):
    made = []

    def make(**more):
        made.append(DockerRegistry(tmp_path / f"registry{len(made)}", **more))
        return made[-1]
    yield make
    for r in made:
        r.stop()


def mark(value):
    return {"mark": value}


def asked(reg, since, kind, what=None):
    return [a for a in reg.asked[since:] if a.kind == kind and what in (None, a.what)]


def serving(g, editions, n, name="p"):
    return g.wait_plugin(name, sha256=editions.sha256(n), stage="Programmed")


# ---- live ----

def test_from_docker_registry(gateway, upstream, editions, docker_registry, own_cache):
    reg = docker_registry()
    digest = reg.push("my-wasm-filter", "v1", editions[1])
    g = gateway(Marked(upstream), cache=own_cache, extra=[res.plugin("p", f"oci://{reg.host}/my-wasm-filter:v1")])
    p = serving(g, editions, 1)
    assert p["digest"] == p["newestDigest"] == digest
    assert p["from"].startswith(f"http://{reg.host}/my-wasm-filter") and p["fromCache"] is False
    g.wait_log(f"image {digest}")
    assert g.get().header("x-mark") == "plain"


def test_the_unedited_url_of_the_guide(gateway, upstream, editions, docker_registry, own_cache):
    reg = docker_registry()
    reg.push("my-wasm-filter", "latest", editions[1])
    g = gateway(Marked(upstream), cache=own_cache, args=["--registry", f"my-registry=http://{reg.host}"],
                extra=[res.plugin("p", "oci://my-registry/my-wasm-filter:latest", phase="AUTHZ")])
    serving(g, editions, 1)


def test_swap_by_tag_under_load(gateway, upstream, editions, docker_registry, own_cache):
    reg, up = docker_registry(), Marked(upstream)
    for i in range(4):
        reg.push("filter", f"v{i}", editions[i])
    g = gateway(up, cache=own_cache, extra=[res.plugin("p", f"oci://{reg.host}/filter:v0", mark("m0"))])
    serving(g, editions, 0)
    with Load(g.port, threads=4) as load:
        for i in range(1, 4):
            g.apply("extra", res.plugin("p", f"oci://{reg.host}/filter:v{i}", mark(f"m{i}")))
            serving(g, editions, i)
            g.wait(lambda: f"m{i}" in up.seen, "traffic through it")
    assert load.failed == 0, load.failures
    assert up.unmarked == []


@pytest.mark.slow
def test_a_hundred_swaps_among_failures(gateway, upstream, editions, docker_registry, own_cache):
    """A bad image, a bad configuration and an outage of the registry in between: no request fails."""
    reg, up = docker_registry(), Marked(upstream)
    for i in range(10):
        reg.push("filter", f"v{i}", editions[i])
    reg.push("filter", "bad", b"\0asm\1\0\0\0 and nothing good")
    url = f"oci://{reg.host}/filter"
    g = gateway(up, cache=own_cache, extra=[res.plugin("p", f"{url}:v0", mark("start"))])
    serving(g, editions, 0)
    with Load(g.port, threads=4) as load:
        for i in range(100):
            if i == 25:
                g.apply("extra", res.plugin("p", f"{url}:bad", mark("bad")))
                g.wait_plugin("p", reason="BadModule", stage="Failed")
            if i == 50:
                g.apply("extra", res.plugin("p", f"{url}:v{i % 10}", {"reject": True}))
                g.wait_plugin("p", reason="ConfigureFailed", stage="Failed")
            if i == 75:
                reg.stop()
                g.apply("extra", res.plugin("p", f"{url}:new", mark("outage")))
                g.wait_plugin("p", reason="FetchFailed", stage="Failed")
                reg.start()
            g.apply("extra", res.plugin("p", f"{url}:v{i % 10}", mark(f"m{i}")))
            g.wait(lambda: f"m{i}" in up.seen, f"swap {i}")
    assert load.failed == 0, load.failures
    assert up.unmarked == []
    assert up.seen == {"start", *(f"m{i}" for i in range(100))}


def test_a_slower_older_download_never_wins(gateway, upstream, editions, scripted, own_cache):
    reg, up = scripted(), Marked(upstream)
    for i in range(3):
        reg.push("filter", f"v{i}", editions[i])
    go, waiting = threading.Event(), threading.Event()

    def hold_v1(h):
        if h.path.endswith(editions.layer(1)):
            waiting.set()
            go.wait(60)
        return False
    g = gateway(up, cache=own_cache, extra=[res.plugin("p", f"oci://{reg.host}/filter:v0")])
    serving(g, editions, 0)
    reg.spoil("blob", hold_v1)
    g.apply("extra", res.plugin("p", f"oci://{reg.host}/filter:v1"))
    g.wait(waiting.is_set, "the older download")
    assert g.plugins()["p"]["stage"] == "Fetching" and g.get().status == 200
    g.apply("extra", res.plugin("p", f"oci://{reg.host}/filter:v2"))
    p = serving(g, editions, 2)
    go.set()
    g.wait_applied(lambda: g.apply("gateway", g.default_resources(up, rules=[res.rule("backend", matches=[res.path_match("/")]), res.rule("backend")])))
    assert g.plugins()["p"]["generation"] == p["generation"]


def test_one_download_for_all(gateway, upstream, editions, scripted, own_cache):
    reg = scripted()
    reg.push("filter", "v1", editions[1])
    go = threading.Event()
    reg.spoil("manifest", lambda h: go.wait(60) and False)
    names = [f"p{i}" for i in range(5)]
    g = gateway(Marked(upstream), cache=own_cache, ready=False,
                extra=[res.plugin(n, f"oci://{reg.host}/filter:v1", mark(n)) for n in names])
    g.wait(lambda: set(g.plugins()) == set(names) and reg.asked, "all to be on their way")
    go.set()
    for n in names:
        serving(g, editions, 1, n)
    assert len(asked(reg, 0, "blob", editions.layer(1))) == 1
    assert len(asked(reg, 0, "manifest")) == 1


# ---- policies ----

def test_if_not_present(gateway, upstream, editions, scripted, own_cache):
    """What is remembered for the url is taken, whatever the tag names now: over edits, new plugins and restarts."""
    reg = scripted()
    reg.push("filter", "v1", editions[1])
    url = f"oci://{reg.host}/filter:v1"
    g = gateway(Marked(upstream), cache=own_cache, extra=[res.plugin("p", url, imagePullPolicy="IfNotPresent")])
    serving(g, editions, 1)
    reg.push("filter", "v1", editions[2])
    since = len(reg.asked)
    g.apply("extra", res.plugin("p", url, mark("again"), imagePullPolicy="IfNotPresent"))
    g.wait(lambda: g.get().header("x-mark") == "again", "the edit")
    g.apply("more", res.plugin("q", url, annotations={"x": "y"}))  # no policy, no ":latest"
    serving(g, editions, 1, "q")
    g.remove("more")
    g.wait(lambda: "q" not in g.plugins(), "it to go")
    reg.stop()
    g.stop()
    g.spawn()
    g.wait_ready()
    p = serving(g, editions, 1)
    assert p["fromCache"] is True and p["digest"].startswith("sha256:")
    assert reg.asked[since:] == []


def test_untagged_is_not_latest(gateway, upstream, editions, scripted, own_cache):
    reg = scripted()
    reg.push("filter", "latest", editions[1])
    g = gateway(Marked(upstream), cache=own_cache, extra=[res.plugin("p", f"oci://{reg.host}/filter")])
    serving(g, editions, 1)
    since = len(reg.asked)
    g.apply_and_wait("extra", res.plugin("p", f"oci://{reg.host}/filter", annotations={"a": "b"}))
    g.apply("extra", res.plugin("p", f"oci://{reg.host}/filter", mark("next")))
    g.wait(lambda: g.get().header("x-mark") == "next", "the edit")
    assert reg.asked[since:] == []


@pytest.mark.parametrize("policy", [{"imagePullPolicy": "Always"}, {}])
def test_always_is_once_for_each_change_of_the_object(gateway, upstream, editions, scripted, own_cache, policy):
    reg = scripted()
    tag = "v1" if policy else "latest"
    reg.push("filter", tag, editions[1])
    url = f"oci://{reg.host}/filter:{tag}"

    def plugin(**annotations):
        return res.plugin("p", url, annotations=annotations, **policy)
    g = gateway(Marked(upstream), cache=own_cache, extra=[plugin(n="0")])
    generation = serving(g, editions, 1)["generation"]
    # The same again, other objects, a restart: nothing is asked.
    since = len(reg.asked)
    g.apply("extra", [plugin(n="0")])
    g.apply_and_wait("more", res.plugin("other", ROOT / "none.wasm", failStrategy="FAIL_OPEN"))
    assert reg.asked[since:] == []
    # Any change of the object asks once, and the digest is the same: no layer, no new VM.
    g.apply("extra", plugin(n="1"))
    g.wait(lambda: len(asked(reg, since, "manifest")) == 1, "the registry to be asked")
    g.wait_plugin("p", stage="Programmed", generation=generation)
    assert asked(reg, since, "blob") == []
    # The tag has moved, and nobody has touched the object.
    digest = reg.push("filter", tag, editions[2])
    since = len(reg.asked)
    g.apply_and_wait("more", res.plugin("other", ROOT / "none2.wasm", failStrategy="FAIL_OPEN"))
    assert reg.asked[since:] == []
    g.apply("extra", plugin(n="2"))
    assert serving(g, editions, 2)["digest"] == digest
    # A look that costs one request when nothing is new, and then what is new.
    assert [a.method for a in asked(reg, since, "manifest")] == ["HEAD", "GET"]
    assert len(asked(reg, since, "blob", editions.layer(2))) == 1
    reg.stop()
    g.stop()
    g.spawn()
    g.wait_ready()
    assert serving(g, editions, 2)["fromCache"] is True


@pytest.mark.parametrize("how", ["sha256", "url"])
def test_a_known_digest_needs_no_registry(gateway, upstream, editions, scripted, own_cache, how):
    reg = scripted()
    digest = reg.push("filter", "v1", editions[1])

    def plugin(name, tag="v1", **more):
        if how == "url":
            return res.plugin(name, f"oci://{reg.host}/filter@{digest}", imagePullPolicy="Always", **more)
        return res.plugin(name, f"oci://{reg.host}/filter:{tag}", sha256=digest[7:], imagePullPolicy="Always", **more)
    g = gateway(Marked(upstream), cache=own_cache, extra=[plugin("p", annotations={"plugin.weir/recheck-interval": "1"})])
    serving(g, editions, 1)
    reg.stop()
    g.apply("extra", plugin("p", annotations={"n": "1"}))
    g.apply("more", plugin("q", tag="v2"))  # the same repository and digest
    serving(g, editions, 1, "q")
    g.stop()
    g.spawn()
    g.wait_ready()
    assert serving(g, editions, 1)["digest"] == digest


def test_a_wrong_digest_is_refused(gateway, upstream, editions, scripted, own_cache):
    reg = scripted()
    reg.push("filter", "v1", editions[1])
    g = gateway(Marked(upstream), cache=own_cache, extra=[res.plugin("p", f"oci://{reg.host}/filter:v1", sha256="0" * 64)])
    g.wait_plugin("p", "Failed", reason="DigestMismatch")
    assert g.get().status == 403


def test_what_is_remembered_settles_no_contradiction(gateway, upstream, editions, scripted, own_cache):
    """A url that names one digest and a sha256 that names another, which is here already."""
    reg = scripted()
    first, second = reg.push("filter", "v1", editions[1]), reg.push("filter", "v2", editions[2])
    g = gateway(Marked(upstream), cache=own_cache, extra=[res.plugin("p", f"oci://{reg.host}/filter:v2")])
    serving(g, editions, 2)
    g.apply("more", res.plugin("q", f"oci://{reg.host}/filter@{first}", sha256=second[7:]))
    g.wait_plugin("q", "Failed", reason="DigestMismatch")


# ---- looking now and then ----

def test_recheck(gateway, upstream, editions, scripted, own_cache):
    reg, up = scripted(), Marked(upstream)
    reg.push("filter", "v1", editions[1])
    g = gateway(up, cache=own_cache, extra=[res.plugin("p", f"oci://{reg.host}/filter:v1", annotations={"plugin.weir/recheck-interval": "1s"})])
    generation = serving(g, editions, 1)["generation"]
    since = len(reg.asked)
    with Load(g.port, threads=2) as load:
        g.wait(lambda: len(asked(reg, since, "manifest")) >= 2, "two looks")
        p = g.wait_plugin("p", stage="Programmed")
        assert p["generation"] == generation and asked(reg, since, "blob") == [] and p["rechecks"] >= 1
        # One look costs one request.
        assert {a.kind for a in reg.asked[since:]} == {"manifest"}
        reg.push("filter", "v1", editions[2])
        serving(g, editions, 2)
        # While the registry is away the module serves, and status says what is wrong.
        reg.stop()
        g.wait(lambda: "look for a new version failed" in (g.plugins()["p"]["warning"] or ""), "the warning")
        assert g.plugins()["p"]["stage"] == "Programmed"
        reg.start()
        reg.push("filter", "v1", b"no module at all")
        g.wait_plugin("p", "Active", stage="Failed", sha256=editions.sha256(2))
        reg.push("filter", "v1", editions[3])
        assert serving(g, editions, 3)["warning"] is None
    assert load.failed == 0, load.failures
    assert up.unmarked == []


# ---- credentials ----

def test_pull_secret(gateway, upstream, editions, scripted, own_cache):
    reg = scripted(user="user", password="canary-password")
    reg.push("filter", "v1", editions[1])
    url = f"oci://{reg.host}/filter:v1"
    g = gateway(Marked(upstream), cache=own_cache, extra=[res.plugin("p", url, imagePullSecret="regcred")])
    p = g.wait_plugin("p", "Failed", reason="PullSecret")
    assert "no Secret istio-system/regcred" in p["message"] and reg.asked == []
    g.apply("secret", pull_secret("regcred", reg.host, "user", "canary-password", type_="Opaque"))
    g.wait(lambda: "of type Opaque" in (g.plugins()["p"]["message"] or ""), "the type to be told")
    g.apply("secret", pull_secret("regcred", reg.host, "user", "wrong"))
    g.wait_plugin("p", "Failed", reason="Unauthorized")
    g.apply("secret", pull_secret("regcred", reg.host, "user", "canary-password"))
    serving(g, editions, 1)
    # Nobody else gets what these credentials fetched.
    g.apply("more", res.plugin("q", url))
    g.wait_plugin("q", "Failed", reason="Unauthorized")
    # Of another namespace's Secret only the name counts.
    g.apply("more", res.plugin("q", url, imagePullSecret="elsewhere/regcred"))
    serving(g, editions, 1, "q")
    text = g.log_text() + g.admin_get("/config").text + g.admin_get("/plugins").text
    assert "canary-password" not in text and "Y2FuYXJ5" not in text
    reg.stop()
    g.stop()
    g.spawn()
    g.wait_ready()
    serving(g, editions, 1)


# ---- signatures ----

@pytest.fixture
def keys(weir, tmp_path):
    def make(name):
        assert weir.run("sign", "--generate-key", tmp_path / name).returncode == 0
        return tmp_path / f"{name}.key", (tmp_path / f"{name}.pub").read_text()
    return make


@pytest.mark.parametrize("form", ["cosign", "detached"])
def test_signatures(gateway, upstream, weir, editions, docker_registry, own_cache, keys, form):
    reg = docker_registry()
    reg.push("filter", "v1", editions[1])
    reg.push("filter", "v2", editions[2])
    private, public = keys("one")
    _, other = keys("two")
    url = f"oci://{reg.host}/filter"
    g = gateway(Marked(upstream), cache=own_cache, extra=[res.plugin("p", f"{url}:v1", verificationKey=public)])
    g.wait_plugin("p", "Failed", reason="SignatureMissing")
    assert g.get().status == 403
    signed = weir.run("sign", f"{reg.host}/filter:v1", "--key", private, "--format", form)
    assert signed.returncode == 0, signed.stderr
    g.apply("extra", res.plugin("p", f"{url}:v1", verificationKey=public, annotations={"try": "again"}, imagePullPolicy="Always"))
    p = serving(g, editions, 1)
    assert p["verified"] is True
    # Another key: what the first one's signature let in does not pass by the cache.
    g.apply("extra", res.plugin("p", f"{url}:v1", verificationKey=other))
    assert g.wait_plugin("p", stage="Failed", state="Active")["reason"] == "SignatureInvalid"
    g.apply("extra", res.plugin("p", f"{url}:v2", verificationKey=public))
    g.wait_plugin("p", stage="Failed", state="Active", reason="SignatureMissing")
    assert g.plugins()["p"]["sha256"] == editions.sha256(1)
    g.apply("extra", res.plugin("p", f"{url}:v1", verificationKey=public))
    g.wait_plugin("p", stage="Programmed")
    reg.stop()
    g.stop()
    g.spawn()
    g.wait_ready()
    assert serving(g, editions, 1)["verified"] is True


# ---- registries that misbehave ----

def status_of(code, **headers):
    return lambda h: h.answer(code, b"{}", headers) or True


def blob_of(h):
    return h.registry.blobs[h.path.rsplit("/", 1)[1]]


def truncate(h):
    h.answer(200, blob_of(h)[:20], length=len(blob_of(h)))
    h.close_connection = True
    return True


def other_bytes(h):
    h.answer(200, blob_of(h)[:-1] + b"!")
    return True


def hang_up(h):
    h.close_connection = True
    return True


@pytest.mark.parametrize("kind,spoiler,reason", [
    ("manifest", status_of(404), "NotFound"), ("manifest", status_of(500), "ServerError"),
    ("manifest", status_of(401), "Unauthorized"), ("manifest", status_of(429), "RateLimited"),
    ("manifest", hang_up, "FetchFailed"), ("blob", status_of(503), "ServerError"), ("blob", truncate, "Truncated"),
    ("blob", hang_up, "Truncated")], ids=["404", "500", "401", "429", "hang-up", "blob-503", "blob-truncated", "blob-hang-up"])
def test_it_is_tried_until_it_works(gateway, upstream, editions, scripted, own_cache, kind, spoiler, reason):
    """The old version serves meanwhile; nobody has to touch anything."""
    reg = scripted()
    for i in (1, 2):
        reg.push("filter", f"v{i}", editions[i])
    url = f"oci://{reg.host}/filter"
    g = gateway(Marked(upstream), cache=own_cache, extra=[res.plugin("p", f"{url}:v1")])
    serving(g, editions, 1)
    reg.spoil(kind, spoiler)
    g.apply("extra", res.plugin("p", f"{url}:v2"))
    p = g.wait_plugin("p", stage="Failed")
    assert p["reason"] == reason and p["nextTryInMs"] > 0, (p["reason"], p["message"])
    assert g.get().status == 200 and g.plugins()["p"]["sha256"] == editions.sha256(1)
    reg.mend()
    serving(g, editions, 2)


def test_retry_after_is_kept(gateway, upstream, editions, scripted, own_cache):
    reg = scripted()
    reg.spoil("manifest", status_of(429, **{"retry-after": "600"}))
    g = gateway(Marked(upstream), cache=own_cache, extra=[res.plugin("p", f"oci://{reg.host}/filter:v1")])
    assert g.wait_plugin("p", "Failed")["nextTryInMs"] > 400_000


def test_wrong_bytes_are_refused(gateway, upstream, editions, scripted, own_cache):
    reg = scripted()
    reg.push("filter", "v1", editions[1])
    reg.spoil("blob", other_bytes)
    g = gateway(Marked(upstream), cache=own_cache, extra=[res.plugin("p", f"oci://{reg.host}/filter:v1")])
    assert g.wait_plugin("p", "Failed")["reason"] == "DigestMismatch"
    assert g.get().status == 403


def test_a_registry_that_does_not_answer_delays_nobody(gateway, upstream, editions, scripted, own_cache):
    slow, reg, up = scripted(), scripted(), Marked(upstream)
    go = threading.Event()
    slow.push("filter", "v1", editions[1])
    slow.spoil("manifest", lambda h: go.wait(60) and False)
    reg.push("filter", "v2", editions[2])
    g = gateway(up, cache=own_cache, ready=False, extra=[res.plugin("p", f"oci://{slow.host}/filter:v1", failStrategy="FAIL_OPEN"),
                                                         res.plugin("q", f"oci://{reg.host}/filter:v2", mark("q"))])
    g.wait(lambda: slow.asked, "the slow one to be asked")
    serving(g, editions, 2, "q")
    assert g.plugins()["p"]["stage"] == "Fetching"
    assert g.get().header("x-mark") == "q"
    go.set()
    serving(g, editions, 1)
    g.wait_ready()


def test_slashes_that_are_no_registry(gateway, upstream):
    bare = res.plugin("p", "oci://x")
    bare["spec"]["url"] = "/opt/filter.wasm"
    g = gateway(Marked(upstream), extra=[bare, res.plugin("q", "oci:///opt/filter.wasm")])
    for name in ("p", "q"):
        g.wait_plugin(name, "Failed", reason="BadReference")
        assert any("file:///opt/filter.wasm" in w for w in g.object("WasmPlugin", name)["warnings"])
