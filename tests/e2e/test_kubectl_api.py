# SPDX-License-Identifier: Apache-2.0
"""The Kubernetes API on the wire: who may use it, watches, versions, errors, shapes."""
import json
import os
import socket
import struct
import subprocess
import sys

import pytest

from weirtest import kubectl as kc
from weirtest import resources as res
from weirtest.client import Conn, fetch
from weirtest.util import LOCAL, wait_until

CM = "/api/v1/namespaces/default/configmaps"
WP = "/apis/extensions.istio.io/v1alpha1/namespaces/istio-system/wasmplugins"
MERGE, SSA, JSON_PATCH = "application/merge-patch+json", "application/apply-patch+yaml", "application/json-patch+json"
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}


@pytest.fixture(scope="module")
def gw(module_gateway, tmp_path_factory):
    args, port = kc.api_args(tmp_path_factory.mktemp("state"))
    g = module_gateway(args=args)
    g.api = kc.Api(port)
    return g


@pytest.fixture
def api(gw):
    return gw.api


def config_map(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def plugin(name, **spec):
    return {"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": name},
            "spec": {"url": "http://127.0.0.1:1/none.wasm", **spec}}


def make(api, path, o):
    r = api.ask("POST", path, o)
    assert r.status == 201, r.text
    return r.json()


def version_of(o):
    return o["metadata"]["resourceVersion"]


class Watch:
    """Events of a watch, one by one."""

    def __init__(self, api, path, accept="application/json"):
        self.conn = Conn(api.port)
        self.conn.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {LOCAL}:{api.port}\r\nAccept: {accept}\r\n\r\n".encode())
        self.file = self.conn.sock.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        while self.file.readline().strip():
            pass
        self.text = b""

    def next(self):
        """The next event; None at the end of the stream."""
        while b"\n" not in self.text:
            size = int(self.file.readline(), 16)
            if size == 0:
                return None
            self.text += self.file.read(size)
            self.file.read(2)
        line, _, self.text = self.text.partition(b"\n")
        return json.loads(line)

    def close(self):
        self.file.close()
        self.conn.close()


# ---- who may ----

def test_host_must_be_ours(api):
    assert fetch(api.port, "GET", "/version", host="evil.example").status == 403
    for host in ("localhost", "localhost:8080", "[::1]:80", f"{LOCAL}:{api.port}"):
        assert fetch(api.port, "GET", "/version", host=host).status == 200


def test_web_pages_are_refused(api):
    assert api.ask("GET", CM, headers={"Origin": f"http://{LOCAL}:{api.port}"}).status == 403
    assert api.ask("GET", CM, headers={"Sec-Fetch-Site": "same-origin"}).status == 403
    assert api.ask("GET", CM, headers={"Sec-Fetch-Site": "cross-site"}).status == 403
    for form in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        r = api.ask("POST", CM, config_map("form"), type=form)
        assert r.status == 415 and r.json()["reason"] == "UnsupportedMediaType"


ASK_AS = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"GET /version HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
print(s.makefile("rb").read().decode())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_other_users_are_refused(gw, api):
    done = subprocess.run([sys.executable, "-c", ASK_AS, str(api.port)], capture_output=True, text=True, timeout=120)
    assert "403 Forbidden" in done.stdout, done
    gw.wait_log("a connection of another user was refused")


def test_only_loopback(weir):
    for address in ("0.0.0.0:8080", "10.0.0.1:8080", "localhost:8080"):
        done = weir.run("run", "--kube-api", address)
        assert done.returncode == 2 and "loopback" in done.stderr


def test_the_data_plane_cannot_reach_it(gateway, tmp_path):
    """Not by a Service that has its address as an endpoint."""
    args, port = kc.api_args(tmp_path / "state")
    gw = gateway(port, args=args)
    assert gw.get("/version").status == 503
    gw.wait_log("is this gateway's Kubernetes API address")


# ---- errors ----

def test_status_objects(api):
    r = api.ask("GET", f"{CM}/none")
    assert r.status == 404 and r.json() == {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": 'configmaps "none" not found',
        "reason": "NotFound", "details": {"name": "none", "kind": "configmaps"}, "code": 404}
    assert api.ask("GET", "/api/v1/nodes").status == 404
    assert api.ask("GET", "/nothing").json()["kind"] == "Status"
    assert api.ask("POST", f"{CM}/x", config_map("x")).status == 405
    assert api.ask("PUT", CM, config_map("x")).status == 405
    assert api.ask("PATCH", f"{CM}/x", {}, type="text/css").status == 415
    assert api.ask("GET", CM, headers={"Accept": "text/html"}).status == 406
    assert api.ask("GET", CM, headers={"Accept": "application/vnd.kubernetes.protobuf"}).status == 406
    assert api.ask("GET", CM, headers={"Accept": "application/vnd.kubernetes.protobuf, */*"}).status == 200
    assert api.ask("POST", CM, "{ half").status == 400
    assert api.ask("POST", CM, "[]").status == 400
    assert api.ask("POST", CM, plugin("x")).status == 400
    assert api.ask("POST", CM, {**config_map("x"), "metadata": {"name": "x", "namespace": "other"}}).status == 400
    assert api.ask("GET", f"{CM}?labelSelector=a%20like%20b").status == 400
    assert api.ask("GET", f"{CM}?fieldSelector=data.x%3Dy").status == 400
    assert api.ask("DELETE", f"{CM}?labelSelector=((").status == 400
    assert api.ask("GET", f"{CM}?limit=many").status == 400
    assert api.ask("POST", f"{CM}?dryRun=Some", config_map("x")).status == 400
    assert api.ask("DELETE", "/api/v1/namespaces/istio-system/pods/weir").status == 405


def test_invalid_objects(api):
    r = api.ask("POST", WP, plugin("bad", phase="authn", sha256="foo"))
    s = r.json()
    assert r.status == 422 and s["reason"] == "Invalid" and s["details"]["kind"] == "WasmPlugin"
    causes = {c["field"]: c for c in s["details"]["causes"]}
    assert causes["spec.phase"]["reason"] == "FieldValueNotSupported"
    assert causes["spec.phase"]["message"] == 'Unsupported value: "authn": supported values: "UNSPECIFIED_PHASE", "AUTHN", "AUTHZ", "STATS"'
    assert causes["spec.sha256"]["message"] == "Invalid value: \"foo\": spec.sha256 in body should match '(^$|^[a-f0-9]{64}$)'"
    assert s["message"].startswith('WasmPlugin.extensions.istio.io "bad" is invalid: [')
    r = api.ask("POST", WP, {**plugin("bad"), "spec": {}})
    assert r.status == 422 and 'invalid: spec.url: Required value' in r.json()["message"]
    assert api.ask("POST", WP, plugin("Bad_Name")).status == 422


def test_unknown_fields(api):
    o = plugin("unknown", nothing={"a": 1})
    o["spec"]["vmConfig"] = {"env": [{"name": "A", "value": "b", "other": 1}]}
    r = api.ask("POST", f"{WP}?fieldValidation=Strict", o)
    assert r.status == 400 and 'strict decoding error: unknown field "spec.nothing"' in r.json()["message"]
    r = api.ask("POST", f"{WP}?fieldValidation=Warn", o)
    assert r.status == 201 and len(r.head.all("warning")) == 2 and 'unknown field \\"spec.nothing\\"' in r.head.all("warning")[0]
    assert "nothing" not in r.json()["spec"] and r.json()["spec"]["vmConfig"]["env"] == [{"name": "A", "value": "b"}]
    assert "warning" not in api.ask("PUT", f"{WP}/unknown?fieldValidation=Ignore", {**r.json(), "spec": o["spec"]}).head
    r = api.ask("POST", f"{WP}?fieldValidation=Strict", '{"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin", '
                '"metadata": {"name": "twice"}, "spec": {"url": "oci://a/b", "url": "oci://a/c"}}')
    assert r.status == 400 and "strict decoding error" in r.text


# ---- writing ----

def test_metadata_of_the_server(api):
    o = make(api, WP, {**plugin("meta"), "status": {"conditions": []}})
    m = o["metadata"]
    assert m["generation"] == 1 and m["uid"] and m["creationTimestamp"].endswith("Z") and "status" not in o
    assert api.ask("POST", WP, {**plugin("meta2"), "metadata": {"name": "meta2", "resourceVersion": "1"}}).status == 400
    labelled = api.ask("PATCH", f"{WP}/meta", {"metadata": {"labels": {"a": "b"}, "uid": m["uid"]}}, type=MERGE).json()
    assert labelled["metadata"]["generation"] == 1 and int(version_of(labelled)) > int(version_of(o))
    same = api.ask("PATCH", f"{WP}/meta", {"metadata": {"labels": {"a": "b"}}}, type=MERGE).json()
    assert same["metadata"]["generation"] == 1
    changed = api.ask("PATCH", f"{WP}/meta", {"spec": {"priority": 1}}, type=MERGE).json()
    assert changed["metadata"]["generation"] == 2 and changed["metadata"]["uid"] == m["uid"]
    r = api.ask("POST", CM, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "made-"}})
    assert r.status == 201 and len(r.json()["metadata"]["name"]) == len("made-") + 5


def test_optimistic_concurrency(api):
    old = make(api, CM, config_map("race", a="1"))
    assert api.ask("PUT", f"{CM}/race", {**old, "data": {"a": "2"}}).status == 200
    r = api.ask("PUT", f"{CM}/race", {**old, "data": {"a": "3"}})
    assert r.status == 409 and r.json()["reason"] == "Conflict" and "please apply your changes to the latest version" in r.json()["message"]
    assert api.ask("PATCH", f"{CM}/race", {"metadata": {"resourceVersion": version_of(old)}}, type=MERGE).status == 409
    assert api.ask("DELETE", f"{CM}/race", {"preconditions": {"resourceVersion": version_of(old)}}).status == 409
    assert api.ask("DELETE", f"{CM}/race", {"preconditions": {"uid": "other"}}).status == 409
    p = make(api, WP, plugin("race"))
    del p["metadata"]["resourceVersion"]
    r = api.ask("PUT", f"{WP}/race", p)
    assert r.status == 422 and "metadata.resourceVersion: Invalid value: 0: must be specified for an update" in r.json()["message"]


def test_status_and_spec_are_apart(api):
    make(api, CM, config_map("parts", a="1"))
    r = api.ask("PATCH", f"{CM}/parts/status", {"status": {"x": 1}, "data": {"a": "2"}}, type=MERGE)
    assert r.status == 200 and r.json()["status"] == {"x": 1} and r.json()["data"] == {"a": "1"}
    r = api.ask("PATCH", f"{CM}/parts", {"status": None, "data": {"a": "3"}}, type=MERGE)
    assert r.json()["status"] == {"x": 1} and r.json()["data"] == {"a": "3"}


def test_dry_run_changes_nothing(api):
    assert api.ask("POST", f"{CM}?dryRun=All", config_map("dry", a="1")).status == 201
    assert api.ask("GET", f"{CM}/dry").status == 404
    make(api, CM, config_map("dry", a="1"))
    assert api.ask("PATCH", f"{CM}/dry?dryRun=All", {"data": {"a": "2"}}, type=MERGE).json()["data"] == {"a": "2"}
    assert api.ask("DELETE", f"{CM}/dry?dryRun=All").status == 200
    assert api.ask("DELETE", f"{CM}/dry", {"dryRun": ["All"]}).status == 200
    assert api.get(f"{CM}/dry")["data"] == {"a": "1"}


def test_server_side_apply_owners(api):
    def ssa(manager, data, force="false", status=200):
        r = api.ask("PATCH", f"{CM}/owned?fieldManager={manager}&force={force}", config_map("owned", **data), type=SSA)
        assert r.status == status, r.text
        return r.json()
    ssa("a", {"x": "1", "y": "1"}, status=201)
    ssa("b", {"y": "1", "z": "1"})            # y is owned by both: the same value
    conflict = ssa("b", {"x": "2"}, status=409)
    assert conflict["reason"] == "Conflict" and conflict["details"]["causes"][0]["field"] == ".data.x"
    assert conflict["message"] == 'Apply failed with 1 conflict: conflict with "a" using v1: .data.x'
    assert ssa("a", {"x": "1"})["data"] == {"x": "1", "y": "1", "z": "1"}   # b still has y
    assert ssa("b", {"z": "1"})["data"] == {"x": "1", "z": "1"}             # nobody has it
    assert ssa("b", {"x": "2"}, force="true")["data"] == {"x": "2"}
    assert ssa("a", {"q": "1"})["data"] == {"x": "2", "q": "1"}             # x is not a's any more
    api.ask("PATCH", f"{CM}/owned?fieldManager=hand", {"data": {"q": "2"}}, type=MERGE)
    assert "hand" in ssa("a", {"q": "1"}, status=409)["message"]
    r = api.ask("PATCH", f"{CM}/owned", config_map("owned"), type=SSA)
    assert r.status == 422 and "fieldManager" in r.text


def test_json_patch(api):
    make(api, CM, config_map("jp", a="1"))
    ops = [{"op": "test", "path": "/data/a", "value": "1"}, {"op": "add", "path": "/data/b", "value": "2"},
           {"op": "move", "from": "/data/a", "path": "/data/c"}, {"op": "add", "path": "/metadata/annotations", "value": {"x/y": "z"}},
           {"op": "replace", "path": "/metadata/annotations/x~1y", "value": "w"}]
    r = api.ask("PATCH", f"{CM}/jp", ops, type=JSON_PATCH)
    assert r.json()["data"] == {"b": "2", "c": "1"} and r.json()["metadata"]["annotations"] == {"x/y": "w"}
    assert api.ask("PATCH", f"{CM}/jp", ops[:1], type=JSON_PATCH).status == 422
    assert api.ask("PATCH", f"{CM}/jp", {"op": "test"}, type=JSON_PATCH).status == 422


def test_strategic_merge_is_for_core_kinds(api):
    make(api, WP, plugin("strategic"))
    r = api.ask("PATCH", f"{WP}/strategic", {}, type="application/strategic-merge-patch+json")
    assert r.status == 415 and r.json()["reason"] == "UnsupportedMediaType"


def test_deletecollection(api):
    for name in ("c1", "c2", "c3"):
        o = config_map(name)
        o["metadata"]["labels"] = {"batch": "x" if name != "c3" else "y"}
        make(api, CM, o)
    assert api.ask("DELETE", f"{CM}?labelSelector=batch%3Dx").status == 200
    assert [o["metadata"]["name"] for o in api.get(f"{CM}?labelSelector=batch")["items"]] == ["c3"]


def test_a_namespace_comes_with_its_first_object(api):
    assert api.ask("GET", "/api/v1/namespaces/fresh").status == 404
    make(api, "/api/v1/namespaces/fresh/configmaps", config_map("x"))
    assert api.get("/api/v1/namespaces/fresh")["status"]["phase"] == "Active"
    assert api.ask("DELETE", "/api/v1/namespaces/fresh").status == 200
    assert api.ask("GET", "/api/v1/namespaces/fresh/configmaps/x").status == 404
    assert api.ask("DELETE", "/api/v1/namespaces/default").status == 403


def test_secrets(gw, api):
    path = CM.replace("configmaps", "secrets")
    o = make(api, path, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "canary-of-a-secret"}})
    assert o["data"] == {"k": "Y2FuYXJ5LW9mLWEtc2VjcmV0"} and "stringData" not in o and o["type"] == "Opaque"
    for text in (gw.log_text(), gw.admin_get("/config").text, gw.admin_get("/logs").text):
        assert "canary-of-a-secret" not in text and "Y2FuYXJ5" not in text


def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7f | 0x80])
        n >>= 7
    return out + bytes([n])


def field(number, data):
    data = data.encode() if isinstance(data, str) else data
    return varint(number << 3 | 2) + varint(len(data)) + data


def test_protobuf_bodies(api):
    meta = field(1, "pb") + field(11, field(1, "a") + field(2, "b"))
    secret = field(1, meta) + field(2, field(1, "k") + field(2, b"\xff\x00v")) + field(3, "Opaque")
    def envelope(kind, raw):
        return b"k8s\0" + field(1, field(1, "v1") + field(2, kind)) + field(2, raw)
    pb = "application/vnd.kubernetes.protobuf"
    r = api.ask("POST", CM.replace("configmaps", "secrets"), envelope("Secret", secret), type=pb)
    assert r.status == 201 and r.json()["data"] == {"k": "/wB2"} and r.json()["metadata"]["labels"] == {"a": "b"}
    r = api.ask("POST", CM, envelope("ConfigMap", field(1, meta) + field(2, field(1, "x") + field(2, "y"))), type=pb)
    assert r.status == 201 and r.json()["data"] == {"x": "y"}
    for bad in (b"k8s", b"k8s\0\xff\xff\xff", envelope("Pod", b""), envelope("Secret", secret[:-3]), b"{}"):
        assert api.ask("POST", CM, bad, type=pb).status == 400


def test_bodies(api):
    head = f"POST {CM} HTTP/1.1\r\nHost: {LOCAL}\r\nContent-Type: application/json\r\n"
    text = json.dumps(config_map("chunked", a="x" * 100000))
    with Conn(api.port) as c:
        c.send(head + "Transfer-Encoding: chunked\r\n\r\n")
        for i in range(0, len(text), 7000):
            piece = text[i:i + 7000]
            c.send(f"{len(piece):x}\r\n{piece}\r\n")
        c.send("0\r\n\r\n")
        assert c.response("POST").status == 201
        c.send(f"GET {CM}/chunked HTTP/1.1\r\nHost: {LOCAL}\r\n\r\n")  # the same connection
        assert c.response("GET").json()["data"]["a"] == "x" * 100000
    with Conn(api.port) as c:
        c.send(head + f"Content-Length: {4 * 1024 * 1024}\r\n\r\n")
        try:
            c.send(b"x" * 4 * 1024 * 1024)
        except OSError:
            pass
        assert c.response("POST").status == 413
    r = api.ask("POST", CM, config_map("large", a="x" * 1100000))
    assert r.status == 422 and "Too long" in r.text


# ---- files ----

def test_objects_of_files_are_read_only(gw, api):
    gw.apply("file", [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "of-file", "namespace": "default"}, "data": {"a": "1"}}])
    wait_until(lambda: api.ask("GET", f"{CM}/of-file").status == 200, "the file's object")
    o = api.get(f"{CM}/of-file")
    assert o["data"] == {"a": "1"} and o["metadata"]["uid"] and o["metadata"]["generation"] == 1
    for r in (api.ask("PUT", f"{CM}/of-file", o), api.ask("DELETE", f"{CM}/of-file"),
              api.ask("PATCH", f"{CM}/of-file", {"data": {"a": "2"}}, type=MERGE),
              api.ask("PATCH", f"{CM}/of-file?fieldManager=x", config_map("of-file"), type=SSA)):
        assert r.status == 403 and "it comes from the file" in r.text and "file.yaml" in r.text
    r = api.ask("POST", CM, config_map("of-file"))
    assert r.status == 409 and r.json()["reason"] == "AlreadyExists" and "file.yaml" in r.text
    w = Watch(api, f"{CM}?watch=true&fieldSelector=metadata.name%3Dof-file&resourceVersion={api.get(CM)['metadata']['resourceVersion']}")
    gw.apply("file", [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "of-file", "namespace": "default"}, "data": {"a": "2"}}])
    e = w.next()
    assert e["type"] == "MODIFIED" and e["object"]["data"] == {"a": "2"} and e["object"]["metadata"]["generation"] == 2
    gw.remove("file")
    assert w.next()["type"] == "DELETED"
    w.close()


def test_a_file_cannot_take_an_applied_name(gw, api):
    make(api, CM, config_map("mine", a="api"))
    gw.apply("twin", [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "mine", "namespace": "default"}, "data": {"a": "file"}}])
    gw.wait_log("is already there, from kubectl; this one is not used")
    assert api.get(f"{CM}/mine")["data"] == {"a": "api"}
    assert api.ask("DELETE", f"{CM}/mine").status == 200
    wait_until(lambda: api.get(f"{CM}/mine")["data"] == {"a": "file"}, "the file's")
    gw.remove("twin")
    wait_until(lambda: api.ask("GET", f"{CM}/mine").status == 404, "it to go")


# ---- reading ----

def test_lists_pages_and_selectors(api):
    path = "/api/v1/namespaces/pages/configmaps"
    for i in range(5):
        o = config_map(f"p{i}")
        o["metadata"]["labels"] = {"n": str(i), "odd": str(i % 2)}
        make(api, path, o)
    def names(query):
        return [o["metadata"]["name"] for o in api.get(f"{path}?{query}")["items"]]
    page = api.get(f"{path}?limit=2")
    assert [o["metadata"]["name"] for o in page["items"]] == ["p0", "p1"] and page["metadata"]["remainingItemCount"] == 3
    assert names(f"limit=2&continue={page['metadata']['continue'].replace('/', '%2F')}") == ["p2", "p3"]
    assert names("labelSelector=odd%3D1") == names("labelSelector=odd%3D%3D1") == ["p1", "p3"]
    assert names("labelSelector=n+in+(1,2),odd!%3D1") == ["p2"]
    assert names("labelSelector=n+notin+(1,2,3),n") == ["p0", "p4"]
    assert names("labelSelector=!n") == [] and len(names("labelSelector=odd")) == 5
    assert names("fieldSelector=metadata.name%3Dp3") == ["p3"] and len(names("fieldSelector=metadata.name!%3Dp3")) == 4
    r = api.ask("GET", f"{path}?resourceVersion=99999999999")
    assert r.status == 504 and r.json()["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    table = api.get(f"{path}?limit=2", headers=TABLE)
    assert table["kind"] == "Table" and [r["cells"][:2] for r in table["rows"]] == [["p0", 0], ["p1", 0]]
    assert table["rows"][0]["object"]["kind"] == "PartialObjectMetadata" and table["columnDefinitions"][0]["name"] == "Name"
    assert table["rows"][0]["cells"][2].endswith("s")
    beta = api.get(path, headers={"Accept": "application/json;as=Table;v=v1beta1;g=meta.k8s.io"})
    assert beta["apiVersion"] == "meta.k8s.io/v1beta1"
    partial = api.get(path, headers={"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"})
    assert partial["kind"] == "PartialObjectMetadataList" and "data" not in partial["items"][0]
    assert [len(api.get(p)["items"]) for p in ("/api/v1/configmaps?fieldSelector=metadata.namespace%3Dpages",)] == [5]


def test_discovery(api):
    assert api.get("/version")["gitVersion"].startswith("v1.")
    assert api.get("/api")["versions"] == ["v1"]
    groups = {g["name"]: g for g in api.get("/apis")["groups"]}
    assert groups["extensions.istio.io"]["preferredVersion"]["version"] == "v1alpha1"
    resources = {r["name"]: r for r in api.get("/apis/extensions.istio.io/v1alpha1")["resources"]}
    assert resources["wasmplugins"]["categories"] == ["istio-io", "extensions-istio-io"] and "wasmplugins/status" in resources
    r = api.ask("GET", "/openapi/v2")
    assert r.status == 200 and r.header("content-type") == "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    for name, where in api.get("/openapi/v3")["paths"].items():
        d = api.get(where["serverRelativeURL"])
        assert d["openapi"] == "3.0.0" and d["components"]["schemas"], name
    d = api.get("/openapi/v3/apis/extensions.istio.io/v1alpha1")
    spec = d["components"]["schemas"]["io.istio.extensions.v1alpha1.WasmPlugin"]["properties"]["spec"]
    assert spec["properties"]["phase"]["enum"] == ["UNSPECIFIED_PHASE", "AUTHN", "AUTHZ", "STATS"] and spec["required"] == ["url"]
    crd = api.get("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/wasmplugins.extensions.istio.io")
    assert crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert api.ask("GET", "/apis/nothing.example/v1").status == 404


def test_other_versions_of_a_kind(api):
    path = "/apis/gateway.networking.k8s.io/{}/namespaces/default/gateways"
    o = {"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "Gateway", "metadata": {"name": "beta"},
         "spec": {"gatewayClassName": "other", "listeners": [{"name": "http", "port": 1, "protocol": "HTTP"}]}}
    assert make(api, path.format("v1beta1"), o)["apiVersion"] == "gateway.networking.k8s.io/v1beta1"
    assert api.get(path.format("v1") + "/beta")["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert api.ask("POST", path.format("v1"), o).status == 400
    assert api.ask("DELETE", path.format("v1") + "/beta").status == 200


# ---- watching ----

def test_watch(api):
    path = "/api/v1/namespaces/watched/configmaps"
    first = make(api, path, config_map("one", a="1"))
    w = Watch(api, f"{path}?watch=true")
    assert (lambda e: (e["type"], e["object"]["metadata"]["name"]))(w.next()) == ("ADDED", "one")
    api.ask("PATCH", f"{path}/one", {"data": {"a": "2"}}, type=MERGE)
    e = w.next()
    assert e["type"] == "MODIFIED" and e["object"]["data"] == {"a": "2"}
    api.ask("DELETE", f"{path}/one")
    deleted = w.next()
    assert deleted["type"] == "DELETED" and int(version_of(deleted["object"])) > int(version_of(e["object"]))
    w.close()
    # From a version on: everything after it, in order.
    w = Watch(api, f"{path}?watch=true&resourceVersion={version_of(first)}")
    assert [w.next()["type"] for _ in range(2)] == ["MODIFIED", "DELETED"]
    w.close()


def test_watch_of_a_selector(api):
    path = "/api/v1/namespaces/selected/configmaps"
    now = api.get(path)["metadata"]["resourceVersion"]
    w = Watch(api, f"{path}?watch=true&labelSelector=in%3Dyes&resourceVersion={now}")
    make(api, path, config_map("x"))
    for label, expected in (("yes", "ADDED"), ("no", "DELETED"), ("yes", "ADDED")):
        api.ask("PATCH", f"{path}/x", {"metadata": {"labels": {"in": label}}}, type=MERGE)
        assert w.next()["type"] == expected
    w.close()


def test_watch_as_table(api):
    path = "/api/v1/namespaces/tables/configmaps"
    make(api, path, config_map("x", a="1"))
    w = Watch(api, f"{path}?watch=true", accept="application/json;as=Table;v=v1;g=meta.k8s.io")
    e = w.next()
    assert e["object"]["kind"] == "Table" and e["object"]["rows"][0]["cells"][:2] == ["x", 1]
    w.close()


def test_watch_ends_and_bookmarks(api):
    w = Watch(api, f"{CM}?watch=true&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion={api.get(CM)['metadata']['resourceVersion']}")
    events = []
    while (e := w.next()) is not None:
        events.append(e)
    assert events[-1]["type"] == "BOOKMARK" and int(version_of(events[-1]["object"])) > 0
    w.close()


def test_watch_that_is_too_old(api):
    old = api.get(CM)["metadata"]["resourceVersion"]
    make(api, CM, config_map("busy", n="0"))
    with Conn(api.port) as c:
        for i in range(2100):
            body = json.dumps({"metadata": {"labels": {"n": str(i)}}})
            c.request("PATCH", f"{CM}/busy/status", {"Content-Type": MERGE}, json.dumps({"status": {"n": i}}), host=LOCAL)
            assert c.response("PATCH").status == 200, body
    w = Watch(api, f"{CM}?watch=true&resourceVersion={old}")
    assert w.status == 200
    e = w.next()
    assert e["type"] == "ERROR" and e["object"]["code"] == 410 and e["object"]["reason"] == "Expired"
    assert w.next() is None
    w.close()


def test_pages_say_the_version_of_the_first(api):
    """An object that changed between two pages was on the first as it was: a watch from the list's version tells."""
    path = "/api/v1/namespaces/churn/configmaps"
    for i in range(4):
        make(api, path, config_map(f"p{i}"))
    first = api.get(f"{path}?limit=2")
    api.ask("PATCH", f"{path}/p0", {"data": {"a": "new"}}, type=MERGE)
    token = first["metadata"]["continue"].replace("/", "%2F")
    last = api.get(f"{path}?limit=2&continue={token}")
    assert last["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    w = Watch(api, f"{path}?watch=true&resourceVersion={last['metadata']['resourceVersion']}")
    e = w.next()
    assert e["type"] == "MODIFIED" and e["object"]["data"] == {"a": "new"}
    w.close()
    for bad in ("x", "1", "99999999999/churn/p0", "x/churn/p0", "/"):
        assert api.ask("GET", f"{path}?limit=2&continue={bad.replace('/', '%2F')}").status == 400
    assert api.ask("GET", f"{path}?limit=2&continue=1%2Fchurn%2Fp0").status == 410


def test_a_query_that_is_not_understood_changes_nothing(api):
    """Passed over, a bad selector would delete everything, and a bad dryRun would write."""
    path = "/api/v1/namespaces/careful/configmaps"
    make(api, path, config_map("x"))
    for query in ("labelSelector=a%3Db%ZZ", "fieldSelector=metadata.name%3Dnone%0", "dryRun=All%", "dryRun=All&dryRun=x", "dryRun=x&dryRun=All"):
        assert api.ask("DELETE", f"{path}?{query}").status == 400
        assert api.ask("DELETE", f"{path}/x?{query}").status == 400
    assert api.ask("DELETE", f"{path}/x?dryRun=&dryRun=All").status == 200
    assert api.get(f"{path}/x")["metadata"]["name"] == "x"


def test_watch_from_the_future(api):
    """The client speaks of another life of this server: it lists again."""
    w = Watch(api, f"{CM}?watch=true&resourceVersion=99999999999")
    e = w.next()
    assert e["type"] == "ERROR" and e["object"]["code"] == 410
    assert w.next() is None
    w.close()


def test_watch_that_wants_everything_first(api):
    path = "/api/v1/namespaces/initial/configmaps"
    make(api, path, config_map("x"))
    now = api.get(path)["metadata"]["resourceVersion"]
    for version in ("", now):
        w = Watch(api, f"{path}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
                       f"&resourceVersion={version}")
        events = [w.next() for _ in range(2)]
        assert [e["type"] for e in events] == ["ADDED", "BOOKMARK"]
        assert events[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
        w.close()


def test_ports_of_an_endpoint_slice_are_replaced(api):
    path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    o = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "ports"}, "addressType": "IPv4",
         "endpoints": [{"addresses": ["127.0.0.1"]}], "ports": [{"name": "http", "port": 1}]}
    make(api, path, o)
    r = api.ask("PATCH", f"{path}/ports", {"ports": [{"name": "http", "port": 2}]}, type="application/strategic-merge-patch+json")
    assert r.status == 200 and [p["port"] for p in api.get(f"{path}/ports")["ports"]] == [2]


def test_a_watcher_that_does_not_read(gw, api):
    """It costs a bounded amount of memory, and no one else anything."""
    path = "/api/v1/namespaces/slow/configmaps"
    with Conn(api.port, receive_buffer=4096) as c:
        c.send(f"GET {path}?watch=true HTTP/1.1\r\nHost: {LOCAL}\r\n\r\n")
        make(api, path, config_map("x", a="0"))
        for i in range(40):
            assert api.ask("PATCH", f"{path}/x", {"data": {"a": str(i) + "y" * 500000}}, type=MERGE).status == 200
        assert api.get(f"{path}/x")["data"]["a"].startswith("39")
        seen = b""
        while piece := c.sock.recv(1 << 20):
            seen += piece
            if seen.endswith(b"0\r\n\r\n"):
                break
        assert b'"code":410' in seen


# ---- the Pod ----

def test_the_pod(gw, api):
    pods = api.get("/api/v1/namespaces/istio-system/pods?labelSelector=istio%3Dingressgateway")["items"]
    assert [p["metadata"]["name"] for p in pods] == ["weir"]
    assert pods[0]["spec"]["containers"][0]["name"] == "weir" and pods[0]["status"]["phase"] == "Running"
    log = "/api/v1/namespaces/istio-system/pods/weir/log"
    lines = api.ask("GET", log).text.splitlines()
    assert any("admin on" in x for x in lines)
    assert api.ask("GET", f"{log}?tailLines=2").text.splitlines() == api.ask("GET", log).text.splitlines()[-2:]
    assert len(api.ask("GET", f"{log}?limitBytes=10").body) == 10
    assert api.ask("GET", f"{log}?sinceTime=2999-01-01T00:00:00Z").body == b""
    assert api.ask("GET", f"{log}?container=weir&tailLines=0").body == b""
    for query, status in (("container=other", 400), ("previous=true", 400), ("tailLines=x", 400), ("sinceTime=x", 400)):
        assert api.ask("GET", f"{log}?{query}").status == status
    assert api.ask("GET", log.replace("/weir/", "/other/")).status == 404


def test_filters_log_is_the_pods_log(gateway, guests, upstream, tmp_path):
    args, port = kc.api_args(tmp_path / "state")
    gw = gateway(upstream(), args=args, log_level="info", extra=[{
        "apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "talker", "namespace": res.NS},
        "spec": {"url": f"file://{guests.source(TALKER, 'talker')}", "selector": {"matchLabels": {"istio": "ingressgateway"}}}}])
    gw.wait_plugin("talker")
    w = Conn(port)
    w.send(f"GET /api/v1/namespaces/istio-system/pods/weir/log?follow=true&tailLines=0 HTTP/1.1\r\nHost: {LOCAL}\r\n\r\n")
    f = w.sock.makefile("rb")
    assert b"200" in f.readline()
    gw.get("/hello")
    line = f.readline()
    while b"I saw it" not in line:
        line = f.readline()
    assert b" info " in line and b"talker" in line, line
    f.close()
    w.close()


TALKER = """
bool pw_on_configure(uint32_t root, uint32_t size) { (void)root; (void)size; return true; }
enum pw_action pw_on_request_headers(uint32_t ctx, uint32_t count, bool end) {
    (void)ctx; (void)count; (void)end;
    pw_logf(PW_INFO, "I saw it");
    return PW_CONTINUE;
}
"""


# ---- the end ----

def test_drain_with_open_watches(gateway, tmp_path):
    args, port = kc.api_args(tmp_path / "state")
    gw = gateway(args=args)
    w = Watch(kc.Api(port), f"{CM}?watch=true")
    gw.stop()
    w.close()
