# SPDX-License-Identifier: Apache-2.0
"""The scorecard as SVG: a bar of CPU microseconds a request for each row, and RSS beside it. Requests/s stays in the
table: on a machine that does other work too it says more about that work than about the proxy.

It brings its own card and colours for dark viewers, because a page shows it as an image and cannot style it.
"""

from xml.sax.saxutils import escape

WIDTH, BAR, ROW, LEFT, RIGHT, TOP = 860, 16, 26, 172, 112, 84
STYLE = """
  .card { fill: #ffffff; stroke: #d0d7de; } .title { fill: #1f2328; font-weight: 600; font-size: 16px; }
  text { fill: #1f2328; font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }
  .quiet { fill: #59636e; font-size: 12px; } .grid { stroke: #d0d7de; stroke-width: 1; }
  .peer { fill: #9aa4af; } .filtered { fill: #c5ccd3; } .weir { fill: #0f7b6c; } .weir-filtered { fill: #58b3a5; }
  .strong { font-weight: 600; } .end { text-anchor: end; } .middle { text-anchor: middle; }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; stroke: #30363d; } .title, text { fill: #e6edf3; } .quiet { fill: #9198a1; }
    .grid { stroke: #30363d; } .peer { fill: #6e7781; } .filtered { fill: #484f58; }
    .weir { fill: #2fb8a3; } .weir-filtered { fill: #1b7a6d; }
  }
"""


def nice_step(top):
    return next((s for s in (1, 2, 5, 10, 20, 25, 50, 100, 200) if top / s <= 6), 500)


def text(x, y, words, *classes):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{" ".join(classes)}">{escape(words)}</text>'


def bar_class(row):
    changed = row["filters"] or row["access_log"]
    if row["family"] == "Weir":
        return "weir-filtered" if changed else "weir"
    return "filtered" if changed else "peer"


def subtitle(result):
    m = result["machine"]
    return (f"one worker each, HTTP/1.1 keep-alive, {result['rounds']} rounds of {result['seconds']} s, medians; "
            f"{m['cpu']}, {m['cores']} cores; {result['date'][:10]}")


def footer(result):
    edits = "; ".join(f"{kind.split(' ')[0]} {e['median_ms']:.0f} ms (p99 {e['p99_ms']:.0f})"
                      for kind, e in result["edits"].items())
    return f"A YAML edit acts on live traffic after: {edits}" if edits else ""


def draw(result):
    rows = result["rows"]
    step = nice_step(max(r["cpu_us"] for r in rows))
    ticks = int(max(r["cpu_us"] for r in rows) / step) + 1
    scale = (WIDTH - LEFT - RIGHT) / (ticks * step)
    bottom = TOP + ROW * len(rows)
    height = bottom + (56 if footer(result) else 32)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
           f'role="img" aria-label="CPU microseconds a request by proxy">', f"<style>{STYLE}</style>",
           f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>',
           text(20, 30, "CPU microseconds a request (less is better)", "title"),
           text(20, 50, subtitle(result), "quiet"),
           text(WIDTH - 20, TOP - 10, "RSS", "quiet", "end")]
    for i in range(ticks + 1):
        x = LEFT + i * step * scale
        out.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4}" y2="{bottom}"/>')
        out.append(text(x, bottom + 16, str(i * step), "quiet", "middle"))
    for i, row in enumerate(rows):
        y = TOP + i * ROW + (ROW - BAR) / 2
        baseline, width = y + BAR - 4, row["cpu_us"] * scale
        strong = ["strong"] if row["family"] == "Weir" else []
        out += [text(LEFT - 10, baseline, row["name"], "end", *strong),
                f'<rect class="{bar_class(row)}" x="{LEFT}" y="{y:.1f}" width="{width:.1f}" height="{BAR}" rx="2"/>',
                text(LEFT + width + 6, baseline, f"{row['cpu_us']:.1f}", *strong),
                text(WIDTH - 20, baseline, f"{row['rss_kib'] / 1024:.0f} MiB", "end", *strong)]
    if footer(result):
        out.append(text(20, bottom + 40, footer(result), "quiet"))
    return "\n".join(out) + "\n</svg>\n"
