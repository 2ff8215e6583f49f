"""ClickHouse over HTTP, as much as measuring needs."""

import http.client
import json
import time
import urllib.parse

from bench.problem import Problem

ANSWER_WITHIN_S = 300
# What is left when an insert ends is merged; so long without a merge is quiet.
QUIET_FOR_S = 1.5
QUIET_WITHIN_S = 180
# Each look is on the server's account too.
POLL_S = 0.3
# The server closes a connection that is idle for longer than it says: be earlier.
REUSE_WITHIN_S = 2


class ClickHouse:
    def __init__(self, url, database):
        self.url = url
        self.database = database
        self._address = urllib.parse.urlsplit(url).netloc
        self._connection = None
        self._used_at = 0.0

    def ask(self, sql, body=None, chunked=False, **settings):
        """The answer as text. `body` is the data of an insert."""
        return self.ask_bytes(sql, body, chunked, **settings).decode()

    def ask_bytes(self, sql, body=None, chunked=False, **settings):
        parameters = {"database": self.database, "wait_end_of_query": 1, **settings}
        if body is None:
            body = sql.encode()
        else:
            parameters["query"] = sql
        path = "/?" + urllib.parse.urlencode(parameters)
        try:
            connection = self._connect()
            connection.request("POST", path, body, encode_chunked=chunked)
            answer = connection.getresponse()
            content = answer.read()
            self._used_at = time.monotonic()
        except (OSError, http.client.HTTPException) as error:
            self._connection = None
            raise Problem(f"ClickHouse at {self.url}: {error!r}") from error
        if answer.status != 200 or answer.getheader("X-ClickHouse-Exception-Code"):
            raise Problem(f"ClickHouse: {content.decode(errors='replace').strip()}\n  {sql[:400]}")
        return content

    def rows(self, sql, **settings):
        answer = self.ask(f"{sql} FORMAT JSONCompactEachRow", **settings)
        return [json.loads(line) for line in answer.splitlines()]

    def value(self, sql):
        return self.rows(sql)[0][0]

    def number(self, sql):
        return int(self.value(sql))

    def event(self, name):
        """A counter of the server's."""
        return self.number(f"SELECT sum(value) FROM system.events WHERE event = '{name}'")

    def another(self):
        """A connection of its own, for another thread."""
        return ClickHouse(self.url, self.database)

    def wait_quiet(self):
        """Until no merge has run for a while; bounded, and says whether it came to that."""
        began = quiet_since = time.monotonic()
        while True:
            now = time.monotonic()
            if self.number("SELECT count() FROM system.merges"):
                quiet_since = now
            if now - quiet_since >= QUIET_FOR_S:
                return True
            if now - began > QUIET_WITHIN_S:
                return False
            time.sleep(POLL_S)

    def _connect(self):
        if self._connection is None or time.monotonic() - self._used_at > REUSE_WITHIN_S:
            self._connection = http.client.HTTPConnection(self._address, timeout=ANSWER_WITHIN_S)
        return self._connection
