# SPDX-License-Identifier: Apache-2.0
class Marked:
    """An upstream that says with which mark a request came, and counts those without."""

    def __init__(self, upstream):
        self.unmarked, self.seen, self.up = [], set(), upstream(self._script, keep_exchanges=False)
        self.port = self.up.port

    def _script(self, x):
        x.body()
        got = x.header("x-mark")
        if got is None:
            self.unmarked.append(x.head.raw)
        self.seen.add(got)
        x.respond(200, {"x-mark": got or ""})
