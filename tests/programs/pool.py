"""A client that keeps the connections of its pool.

pool.py URL COUNT HABIT: prints "here", and waits for a line. Asks the URL over so many connections at once,
which go back to the pool, prints "ready" and after how many nanoseconds at most an answer was read, and sleeps
until its standard input ends. Habits:

forgets    does nothing more with them
closes     closes the session
keepalive  forgets them, with TCP keepalive after a second
ignores    reads the end of each, and keeps it
returns    takes them from the pool again for every line, and prints the same
"""

import socket
import sys
import time

import requests
from requests.adapters import HTTPAdapter


class Adapter(HTTPAdapter):
    """A pool with socket options of its own."""

    def __init__(self, count, options):
        self.options = options
        super().__init__(pool_connections=1, pool_maxsize=count)

    def init_poolmanager(self, *arguments, **named):
        super().init_poolmanager(*arguments, socket_options=self.options, **named)


KEEPALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
]


def session_of(count, habit):
    session = requests.Session()
    session.verify = False
    session.trust_env = False
    options = KEEPALIVE if habit == "keepalive" else []
    for scheme in ("http://", "https://"):
        session.mount(scheme, Adapter(count, options))
    return session


def fetch(session, url, count):
    begin = time.monotonic_ns()
    responses = [session.get(url, stream=True) for _ in range(count)]
    sockets = [response.raw.connection.sock for response in responses]
    for response in responses:
        _ = response.content
    return sockets, time.monotonic_ns() - begin


def main():
    url, count, habit = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    session = session_of(count, habit)
    print("here", flush=True)
    sys.stdin.readline()
    sockets, longest = fetch(session, url, count)
    if habit == "closes":
        session.close()
    print("ready", longest, flush=True)
    if habit == "ignores":
        for connection in sockets:
            assert connection.recv(1) == b""
    for _ in sys.stdin:
        if habit == "returns":
            _, longest = fetch(session, url, count)
            print("ready", longest, flush=True)


main()
