# SPDX-License-Identifier: Apache-2.0
"""Builds filters from C (or C++) with tools/guest-c, once for each content in a session."""
import hashlib
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[3]


class Guests:
    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.built = {}

    def build(self, name):
        """A guest of tests/guests (name without .c), or a path relative to the repository such as examples/api-key/api_key.c."""
        path = ROOT / name if "/" in name else next(p for p in (ROOT / f"tests/guests/{name}.c", ROOT / f"tests/guests/{name}.cpp") if p.exists())
        return self._build(path.read_bytes(), path.stem, path.suffix, path)

    def source(self, text, name="guest", suffix=".c"):
        """A guest from text that is given in the test. #include "proxy_wasm.h" is put before it when it has none."""
        if suffix == ".c" and "proxy_wasm.h" not in text:
            text = '#include "proxy_wasm.h"\n' + text
        data = text.encode()
        path = self.directory / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}{suffix}"
        path.write_bytes(data)
        return self._build(data, name, suffix, path)

    def _build(self, data, name, suffix, path):
        key = hashlib.sha256(data + suffix.encode()).hexdigest()[:16]
        out = self.directory / f"{name}-{key}.wasm"
        if key not in self.built:
            done = subprocess.run([str(ROOT / "tools/guest-c"), str(out), str(path)], capture_output=True, text=True)
            assert done.returncode == 0, f"guest {name} does not build:\n{done.stdout}{done.stderr}"
            self.built[key] = out
        return self.built[key]
