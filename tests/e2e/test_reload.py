# SPDX-License-Identifier: Apache-2.0
"""Resources that change while traffic flows: every way files change, and what a bad change does (nothing)."""
import json
import os
import signal
import threading

import pytest

from weirtest import resources as res
from weirtest.gateway import dump
from weirtest.load import Load
from weirtest.util import free_port, wait_until


def served_by(gw, name, path="/"):
    return gw.wait(lambda: gw.get(path).text == name, f"{path} served by {name}")


@pytest.fixture
def two(gateway, upstream):
    """A gateway with Services one and two; everything goes to one. The route is in a file of its own."""
    one, other = upstream(name="one"), upstream(name="two")
    gw = gateway(start=False)
    gw.start(resources={"base": lambda port: [res.gateway(port), *res.backend("one", one), *res.backend("two", other)],
                        "route": res.route("r", res.rule("one"))})
    assert gw.get().text == "one"
    return gw


TO_TWO = res.route("r", res.rule("two"))


def test_atomic_rename(two):
    two.apply("route", TO_TWO)
    served_by(two, "two")


def test_edit_in_place(two):
    (two.dir / "route.yaml").write_text(dump(TO_TWO))
    served_by(two, "two")


def test_edit_in_place_in_steps(two):
    """A file that is written slowly is half there for a while: the old object stays until the new one is whole."""
    text = dump([TO_TWO])
    with Load(two.port, threads=2) as load:
        with open(two.dir / "route.yaml", "w") as f:
            for i in range(0, len(text), 20):
                f.write(text[i:i + 20])
                f.flush()
                two.is_ready()
        served_by(two, "two")
    load.assert_lossless()


def test_edit_without_a_change_publishes_nothing(two):
    version = two.config()["version"]
    two.apply("route", "# a comment\n" + dump(res.route("r", res.rule("one"))))
    two.apply("more", res.route("other", res.rule("two"), hostnames=["other.example"]))  # a change to wait for
    two.wait(lambda: two.get(host="other.example").text == "two")
    assert two.config()["version"] <= version + 2


def test_new_file_and_subdirectory(two):
    two.apply("new", res.route("n", res.rule("two", matches=[res.path_match("/new")])))
    served_by(two, "two", "/new")
    (two.dir / "sub").mkdir()
    (two.dir / "sub" / "a.yaml").write_text(dump(res.route("s", res.rule("two", matches=[res.path_match("/sub")]))))
    two.apply("last", res.route("l", res.rule("two", matches=[res.path_match("/last")])))
    served_by(two, "two", "/last")


def test_removed_file(two):
    two.remove("route")
    two.wait_status(404)
    two.apply("route", TO_TWO)
    served_by(two, "two")


def test_json_and_other_suffixes(two):
    two.apply("r2.json", json.dumps(res.route("j", res.rule("two", matches=[res.path_match("/json")]))))
    served_by(two, "two", "/json")
    two.apply("r3.yml", res.route("y", res.rule("two", matches=[res.path_match("/yml")])))
    served_by(two, "two", "/yml")
    two.apply("notes.txt", "not: [yaml")
    two.apply(".hidden.yaml", "not: [yaml")
    two.apply("r4.yaml", res.route("z", res.rule("two", matches=[res.path_match("/z")])))
    served_by(two, "two", "/z")
    assert two.config()["fileErrors"] == []


def config_map_swap(directory, name, files):
    """As the kubelet does it: a new directory, a ..data link renamed over the old one, files that link through it."""
    data = directory / name
    data.mkdir(parents=True)
    for file, text in files.items():
        (data / file).write_text(text)
    link = directory / "..data_tmp"
    link.symlink_to(name)
    os.rename(link, directory / "..data")
    for file in files:
        if not (directory / file).is_symlink():
            (directory / file).symlink_to(os.path.join("..data", file))
    for entry in directory.iterdir():
        if entry.is_symlink() and entry.name != "..data" and entry.name not in files:
            entry.unlink()


def test_symlink_swap_of_a_config_map(gateway, upstream):
    one, other = upstream(name="one"), upstream(name="two")
    gw = gateway(start=False)
    mounted = gw.state / "mounted"
    mounted.mkdir()

    def files(backend, port):
        return {"gateway.yaml": dump(res.gateway(port)), "route.yaml": dump(res.route("r", res.rule(backend))),
                "backends.yaml": dump([*res.backend("one", one), *res.backend("two", other)])}

    port = free_port()
    config_map_swap(mounted, "..2026_01_01", files("one", port))
    gw.start(resources={}, paths=[mounted], port=port)
    assert gw.get().text == "one"
    with Load(gw.port, threads=2) as load:
        for i in range(6):
            name = "two" if i % 2 == 0 else "one"
            config_map_swap(mounted, f"..2026_02_{i:02}", files(name, port))
            served_by(gw, name)
    load.assert_lossless()
    assert len(gw.config()["objects"]) == len({(o["kind"], o["namespace"], o["name"]) for o in gw.config()["objects"]})


def test_files_and_directories_as_operands(gateway, upstream):
    up = upstream()
    gw = gateway(start=False)
    port = free_port()
    (gw.state / "a.yaml").write_text(dump([res.gateway(port), *res.backend("backend", up)]))
    gw.start(resources={"route": res.route("r", res.rule("backend"))}, paths=[gw.state / "a.yaml", gw.dir], port=port)
    assert gw.get().status == 200
    aside = gw.state / "b"
    aside.write_text(dump([res.gateway(port, limits="l"), res.limits({"max-uri-bytes": 256}, "l"), *res.backend("backend", up)]))
    os.rename(aside, gw.state / "a.yaml")
    gw.wait_status(414, "/" + "a" * 300)


def bad_status(gw, text):
    """Everything that must say what is not in use, and why."""
    gw.wait(lambda: text in gw.admin_get("/config").text, f"{text!r} in /config")
    gw.wait(lambda: gw.metrics().value("weir_config_bad_objects") >= 1)
    assert gw.config()["notInUse"] >= 1
    status = gw.weir.run("status", "--admin", f"127.0.0.1:{gw.admin}")
    assert text in status.stdout, status.stdout
    gw.wait_log(text)
    assert gw.is_ready(), "the last good version serves: it is ready"


def test_broken_yaml_keeps_the_last_objects(two):
    with Load(two.port, threads=2) as load:
        two.apply("route", "apiVersion: [unclosed\n  - : :")
        two.wait(lambda: two.config()["fileErrors"])
        error = two.config()["fileErrors"][0]
        assert "route.yaml:" in error
        bad_status(two, "route.yaml:")
        assert two.get().text == "one"
        two.apply("route", TO_TWO)
        served_by(two, "two")
    load.assert_lossless()
    two.wait(lambda: two.config()["notInUse"] == 0 and not two.config()["fileErrors"])
    assert two.metrics().value("weir_config_bad_objects") == 0


def test_bad_object_keeps_its_last_good_version(two):
    bad = res.route("r", res.rule("two"))
    bad["spec"]["rules"][0]["matchez"] = []
    with Load(two.port, threads=2) as load:
        two.apply("route", bad)
        bad_status(two, "matchez")
        o = two.object("HTTPRoute", "r")
        assert o["state"] == "stale" and any("matchez" in e and "route.yaml:" in e for e in o["errors"])
        assert two.get().text == "one"
        two.apply("route", TO_TWO)
        served_by(two, "two")
    load.assert_lossless()
    assert two.object("HTTPRoute", "r")["state"] == "current"


def test_bad_object_delays_no_other(two):
    bad = res.route("r", res.rule("two"), hostnames=["not a host"])
    two.apply("route", [bad, res.route("good", res.rule("two", matches=[res.path_match("/good")]))])
    served_by(two, "two", "/good")
    assert two.get().text == "one"
    bad_status(two, "not a host")


def test_bad_object_from_the_start(gateway, upstream):
    """It never was good: nothing serves it, the rest serves."""
    up = upstream()
    gw = gateway(start=False)
    bad = res.route("bad", res.rule("backend", matches=[{"path": {"type": "Prefix", "value": "/bad"}}]))
    gw.start(resources={"r": lambda port: [res.gateway(port), *res.backend("backend", up), bad,
                                           res.route("good", res.rule("backend", matches=[res.path_match("/good")]))]})
    assert gw.get("/good").status == 200
    assert gw.get("/bad").status == 404
    assert gw.object("HTTPRoute", "bad")["state"] == "invalid"
    bad_status(gw, "Prefix")


def test_same_object_in_two_files(two):
    """Which one counts is said, and neither breaks traffic."""
    two.apply("route2", TO_TWO)
    two.wait(lambda: "route2.yaml" in two.admin_get("/config").text)
    assert two.get().text in ("one", "two")
    two.remove("route2")
    served_by(two, "one")


def test_object_moves_between_files(two):
    """Renaming a file is no moment without its objects."""
    with Load(two.port, threads=4) as load:
        for i in range(10):
            a, b = ("route.yaml", "moved.yaml") if i % 2 == 0 else ("moved.yaml", "route.yaml")
            os.rename(two.dir / a, two.dir / b)
            two.wait(lambda: two.object("HTTPRoute", "r")["file"].endswith(b))
        wait_until(lambda: load.ok > 200, "load")
    load.assert_lossless()


def test_route_edits_under_load(two):
    """100 route edits: 0 failed requests."""
    with Load(two.port, threads=4) as load:
        for i in range(100):
            name = ("one", "two")[i % 2]
            two.apply("route", res.route("r", res.rule(name), res.rule(name, matches=[res.path_match(f"/v{i}")])))
            if i % 10 == 9:
                served_by(two, name)
        served_by(two, "two")
    load.assert_lossless(100)


@pytest.mark.slow
def test_endpoint_changes_under_load(gateway, upstream):
    """1,000 endpoint changes: 0 failed requests. An endpoint that leaves keeps serving what it has."""
    ups = [upstream(name=f"u{i}", keep_exchanges=False, record=0) for i in range(4)]
    gw = gateway(ups[:1])
    version = gw.config()["version"]
    with Load(gw.port, threads=4) as load:
        for i in range(1000):
            use = [ups[k] for k in range(4) if (i >> k) & 1 or k == i % 4]
            gw.apply("slices", [res.slice_("backend", u.port, name=f"extra-{u.name}") for u in use])
            if i % 50 == 49:
                count = len(use) + 1
                gw.wait(lambda: sum(o["kind"] == "EndpointSlice" for o in gw.config()["objects"]) == count)
                total = load.total
                wait_until(lambda: load.total >= total + 20, "load to go on")
    load.assert_lossless(400)
    assert all(u.count > 0 for u in ups), [u.count for u in ups]


def test_endpoint_change_is_no_new_snapshot(gateway, upstream):
    """Endpoints are not in the snapshot: they are messages to the clusters."""
    ups = [upstream(name=f"u{i}") for i in range(2)]
    gw = gateway(ups[0])
    gw.apply("slices", res.slice_("backend", ups[1].port, name="extra"))
    gw.wait(lambda: gw.get().text == "u1")
    gw.apply("slices", res.slice_("backend", ups[1].port, name="extra", ready=False))
    def only_first():
        return all(gw.get().text == "u0" for _ in range(10))
    gw.wait(only_first)


def test_removed_endpoint_finishes_its_streams(gateway, upstream):
    go = threading.Event()
    up = upstream(lambda x: (x.target != "/slow" or go.wait(60)) and x.respond(200, None, b"slow"))
    other = upstream(name="other")
    gw = gateway(up)
    with gw.conn() as c:
        c.request("GET", "/slow")
        up.wait_count(1)
        gw.apply("gateway", gw.default_resources(other))
        gw.wait(lambda: gw.get().text == "other")
        go.set()
        assert c.response().text == "slow"


def test_listener_is_not_reopened_by_edits(two):
    """Connections made before an edit serve after it."""
    with two.conn() as c:
        for i in range(10):
            name = ("two", "one")[i % 2]
            two.apply_and_wait("route", res.route("r", res.rule(name)))
            assert c.request().response().text == name
    assert two.log_text().count("listening on") == 1


def test_sighup_does_no_harm(two):
    two.signal(signal.SIGHUP)
    two.apply("route", TO_TWO)
    served_by(two, "two")
