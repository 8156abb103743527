#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""terminal_svg.py TITLE < text > picture.svg: what a terminal showed, as a picture that a page can hold. Lines that begin with
"$ " are what was typed, lines that begin with "# " are remarks. Long lines are folded at 100 columns."""
import html
import sys

COLUMNS, CHAR, LINE, TOP, LEFT = 100, 7.8, 17, 46, 18
COLOURS = {"$": "#e8e6df", "#": "#8fb996", "": "#b8b5ab"}


def rows(text):
    for line in text.rstrip("\n").split("\n"):
        kind = line[0] if line[:2] in ("$ ", "# ") else ""
        line = line.rstrip("\r").expandtabs(8)
        yield kind, line[:COLUMNS]
        for at in range(COLUMNS, len(line), COLUMNS - 2):
            yield kind, "  " + line[at : at + COLUMNS - 2]


def main():
    lines = list(rows(sys.stdin.read()))
    width, height = LEFT * 2 + COLUMNS * CHAR, TOP + len(lines) * LINE + 14
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" height="{height}" '
          f'role="img" aria-label="{html.escape(sys.argv[1])}">')
    print(f'<rect width="100%" height="100%" rx="8" fill="#22262b"/><text x="{width / 2:.0f}" y="24" text-anchor="middle" '
          f'font-family="sans-serif" font-size="13" fill="#8b9199">{html.escape(sys.argv[1])}</text>')
    print('<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="13">')
    for i, (kind, line) in enumerate(lines):
        weight = ' font-weight="bold"' if kind == "$" else ""
        if line:
            print(f'<text x="{LEFT}" y="{TOP + i * LINE}" fill="{COLOURS[kind]}"{weight} textLength="{len(line) * CHAR:.1f}" '
                  f'lengthAdjust="spacing">{html.escape(line).replace(" ", chr(160))}</text>')
    print("</g></svg>")


if __name__ == "__main__":
    main()
