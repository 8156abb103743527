# SPDX-License-Identifier: Apache-2.0
"""A strict reader of the Prometheus text format 0.0.4: enough to test what weir writes, and to find what is malformed."""
import re

_SAMPLE = re.compile(r'^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$')
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)')
_TYPES = {"counter", "gauge", "histogram", "summary", "untyped"}


def _labels(text):
    labels, at = {}, 0
    while at < len(text):
        m = _LABEL.match(text, at)
        if m is None:
            raise ValueError(f"bad labels: {text!r}")
        if m[1] in labels:
            raise ValueError(f"label twice: {text!r}")
        labels[m[1]] = m[2].replace('\\n', '\n').replace('\\"', '"').replace('\\\\', '\\')
        at = m.end()
    return labels


class Metrics:
    def __init__(self, text):
        self.text, self.samples, self.types, self.help = text, [], {}, {}
        seen, current = set(), None
        if text and not text.endswith("\n"):
            raise ValueError("no newline at the end")
        for line in text.splitlines():
            if line.startswith("# HELP "):
                name, _, rest = line[7:].partition(" ")
                if name in self.help:
                    raise ValueError(f"HELP of {name} twice")
                self.help[name] = rest
                current = name
            elif line.startswith("# TYPE "):
                name, _, kind = line[7:].partition(" ")
                if kind not in _TYPES or name in self.types:
                    raise ValueError(f"bad TYPE line: {line!r}")
                self.types[name] = kind
                current = name
            elif line.startswith("#") or line == "":
                continue
            else:
                m = _SAMPLE.match(line)
                if m is None:
                    raise ValueError(f"bad sample: {line!r}")
                labels = _labels(m[2] or "")
                key = (m[1], tuple(sorted(labels.items())))
                if key in seen:
                    raise ValueError(f"series twice: {line!r}")
                seen.add(key)
                family = m[1]
                if family not in self.types:
                    family = re.sub(r"_(bucket|sum|count)$", "", family)
                if family != current:
                    raise ValueError(f"sample outside its family: {line!r}")
                self.samples.append((m[1], labels, float(m[3])))

    def find(self, name, **labels):
        return [(l, v) for n, l, v in self.samples if n == name and all(l.get(k) == w for k, w in labels.items())]

    def value(self, name, **labels):
        """The sum of the series with these labels; a KeyError when there is none."""
        found = self.find(name, **labels)
        if not found:
            raise KeyError(f"{name} {labels}")
        return sum(v for _, v in found)

    def get(self, name, default=0.0, **labels):
        found = self.find(name, **labels)
        return sum(v for _, v in found) if found else default
