#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds the Wasm engine (a static library and its headers) once, outside the build folder, keyed by everything that
# shapes it: the lock file, the manifest, this script and the compiler. Prints the folder on standard output and
# everything else on standard error. A second call returns at once.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=${WEIR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/weir}

# Cargo from PATH when new enough for Wasmtime 48, else the one of Debian's rustc-web/cargo-web packages.
new_enough() { "$1" --version 2>/dev/null | awk '{split($2,v,"."); exit !(v[1]>1 || (v[1]==1 && v[2]>=95))}'; }
cargo=
for candidate in cargo "$HOME/.cargo/bin/cargo" /usr/bin/cargo; do
    if new_enough "$candidate"; then cargo=$candidate; break; fi
done
if [ -z "$cargo" ]; then
    echo "engine: no cargo >= 1.95 found; on Debian: apt-get install rustc-web cargo-web" >&2
    exit 1
fi
if [ "$cargo" = /usr/bin/cargo ]; then export PATH=/usr/bin:$PATH; fi

key=$(cat "$here/Cargo.lock" "$here/Cargo.toml" "$here/src/lib.rs" "$0" <("$cargo" --version) | sha256sum | cut -c1-16)
root=$cache/wasmtime-$key
if [ -f "$root/done" ]; then echo "$root"; exit 0; fi

started=$(date +%s)
echo "engine: building Wasmtime once into $root (about 3 minutes on two cores)" >&2
target=$cache/build-$key
# Progress a person can follow even without a terminal: a line every 15 seconds.
( while sleep 15; do
    n=$(find "$target/release/deps" -name '*.d' 2>/dev/null | wc -l)
    echo "engine: $(( $(date +%s) - started )) s, $n crates compiled" >&2
  done ) &
ticker=$!
trap 'kill $ticker 2>/dev/null || true' EXIT
(cd "$here" && "$cargo" build --release --locked --quiet --target-dir "$target") >&2

source=$(cd "$here" && "$cargo" metadata --locked --format-version 1 |
    python3 -c 'import json,sys,os
for p in json.load(sys.stdin)["packages"]:
    if p["name"] == "wasmtime-c-api-impl": print(os.path.dirname(p["manifest_path"]))')
staging=$root.tmp.$$
rm -rf "$staging"
mkdir -p "$staging/lib" "$staging/include"
cp "$target/release/libweir_wasmtime.a" "$staging/lib/"
cp -r "$source/include/." "$staging/include/"
# conf.h tells the headers which features were built; it is made from conf.h.in as Wasmtime's own build does.
features="CRANELIFT WINCH PARALLEL_COMPILATION ADDR2LINE DEMANGLE COMPILER"
python3 - "$source/include/wasmtime/conf.h.in" "$staging/include/wasmtime/conf.h" $features <<'PY'
import re, sys
text = open(sys.argv[1]).read()
on = {"WASMTIME_FEATURE_" + f for f in sys.argv[3:]}
text = re.sub(r"#cmakedefine (\w+)", lambda m: ("#define " if m[1] in on else "// not built: ") + m[1], text)
open(sys.argv[2], "w").write(text)
PY
touch "$staging/done"
rm -rf "$root"
mv "$staging" "$root"
rm -rf "$target"
echo "engine: done in $(( $(date +%s) - started )) s" >&2
echo "$root"
