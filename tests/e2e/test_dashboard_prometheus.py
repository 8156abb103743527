# SPDX-License-Identifier: Apache-2.0
"""deploy/prometheus and deploy/grafana: rules that promtool takes and whose tests pass, and no series in either that
/metrics does not have."""
import json
import pathlib
import re
import shutil
import subprocess

import pytest

from weirtest import resources as res

ROOT = pathlib.Path(__file__).resolve().parents[2]
RULES = ROOT / "deploy/prometheus/alerts.yaml"
GRAFANA = ROOT / "deploy/grafana/weir.json"
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian: prometheus) is not installed")


def promtool(*args):
    r = subprocess.run(["promtool", *map(str, args)], cwd=RULES.parent, capture_output=True, text=True, timeout=120)
    assert r.returncode == 0, r.stdout + r.stderr


@needs_promtool
def test_rules():
    promtool("check", "rules", RULES)
    promtool("test", "rules", "alerts_test.yaml")
    names = set(re.findall(r"alert: (\w+)", RULES.read_text()))
    assert names == set(re.findall(r"alertname: (\w+)", (RULES.parent / "alerts_test.yaml").read_text())), "each alert has a test"


def expressions():
    doc = json.loads(GRAFANA.read_text())
    out = [t["expr"] for p in doc["panels"] for t in p.get("targets", ())] + [v["definition"] for v in doc["templating"]["list"] if "definition" in v]
    return out


@needs_promtool
def test_expressions_of_the_dashboard(tmp_path):
    """promtool reads rules: each query is made one."""
    lines = ["groups:", "- name: panels", "  rules:"]
    for i, e in enumerate(expressions()):
        if not e.startswith("label_values"):
            lines += [f"  - record: panel_{i}", "    expr: " + json.dumps(e.replace("$__rate_interval", "1m").replace("$instance", ".*").replace("$plugin", ".*"))]
    (tmp_path / "panels.yaml").write_text("\n".join(lines) + "\n")
    promtool("check", "rules", tmp_path / "panels.yaml")


def test_panels_do_not_overlap():
    doc = json.loads(GRAFANA.read_text())
    taken = set()
    for p in doc["panels"]:
        g = p["gridPos"]
        cells = {(x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])}
        assert not cells & taken and g["x"] + g["w"] <= 24, p["title"]
        taken |= cells
    assert len({p["id"] for p in doc["panels"]}) == len(doc["panels"])


def test_each_series_is_there(gateway, upstream, guests):
    g = gateway(upstream(), extra=[res.plugin("p", guests.build("counter"), {"mark": "a"}, annotations={"plugin.weir/cpu-deadline": "50ms"})])
    g.wait(lambda: g.plugins()["p"]["state"] == "Active", "the plugin")
    g.get("/")
    g.get("/", {"x-op": "trap"})
    g.wait(lambda: g.metrics().value("weir_plugin_traps_total", plugin=f"{res.NS}.p", callback="proxy_on_request_headers"), "a trap")
    g.wait(lambda: g.get("/").status == 200, "a new VM")
    g.wait(lambda: g.metrics().value("weir_plugin_programmed", plugin=f"{res.NS}.p") == 1, "the gauge")
    text = g.admin_get("/metrics").body.decode()
    have = set(re.findall(r"^(weir_\w+)[{ ]", text, re.M)) | {"weir_plugin_breaches_total"}  # that one takes a breach; its name stands in the code
    assert "weir_plugin_breaches_total" in (ROOT / "src/proxy/plugin_stats.c").read_text()
    alerts = "\n".join(re.findall(r"expr: (.*)", RULES.read_text()))
    named = set(re.findall(r"\bweir_\w+", alerts + "\n".join(expressions())))
    assert named - have == set() and len(named) > 20
    g.apply("extra", "# none\n")
    g.wait(lambda: "weir_plugin_programmed" not in g.admin_get("/metrics").body.decode(), "the gauge to go with its plugin")
