#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The allowed-include table of ARCHITECTURE.md, and which file may know which library."""
import pathlib
import re
import sys

ALLOWED = {
    "base": {"base"},
    "io": {"io", "base"},
    "wasm": {"wasm", "base"},
    "http": {"http", "base"},
    "conf": {"conf", "http", "base"},
    "proxy": {"proxy", "conf", "io", "http", "wasm", "base"},
    "fetch": {"fetch", "io", "base"},
    "web": {"web", "http", "io", "base"},
    "kube": {"kube", "web", "fetch", "conf", "http", "io", "base"},
    "control": {"control", "kube", "web", "fetch", "proxy", "conf", "io", "http", "wasm", "base"},
    "cli": {"cli", "control", "kube", "web", "fetch", "proxy", "conf", "io", "http", "wasm", "base"},
}
# A third-party header shows in these places only.
LIBRARIES = {
    r"wasmtime|wasm\.h": {"wasm/"},
    r"yaml\.h": {"conf/ydoc.c"},
    r"curl/": {"fetch/transfer.c", "cli/ask."},
    r"openssl/": {"control/module_cache", "conf/digest.c", "fetch/signature.c", "fetch/encode.c"},
    r"archive": {"fetch/layer.c", "fetch/image.c"},
    r"pcre2\.h": {"conf/regex.c", "proxy/route"},
    r"ares\.h": {"io/resolve.c"},
    r"uv\.h": {"io/"},
    r"zlib\.h": {"wasm/foreign.c", "fetch/unwrap.c", "fetch/image.c"},
    r"jansson\.h": {"conf/", "fetch/", "kube/api_", "kube/status_merge.c", "cli/ask.", "proxy/access_log_format.c"},
}

src = pathlib.Path(__file__).resolve().parent.parent / "src"
bad = 0
for path in sorted(src.rglob("*.[ch]")):
    name = path.relative_to(src).as_posix()
    layer = name.split("/")[0]
    if layer not in ALLOWED:
        continue
    for number, line in enumerate(path.read_text().splitlines(), 1):
        own = re.match(r'#include "([a-z]+)/', line)
        if own and own[1] not in ALLOWED[layer]:
            print(f"check: src/{name}:{number}: {layer}/ may not include {own[1]}/")
            bad += 1
        other = re.match(r"#include <([^>]+)>", line)
        for pattern, places in LIBRARIES.items():
            if other and re.match(pattern, other[1]) and not any(name.startswith(p) for p in places):
                print(f"check: src/{name}:{number}: <{other[1]}> belongs in {', '.join(sorted(places))}")
                bad += 1
sys.exit(1 if bad else 0)
