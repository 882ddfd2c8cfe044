"""A client that asks one question after the other, as long as it gets a local port.

crawler.py URL HABIT: prints "here". For every line with a number it asks the URL so many times, each over a
session of its own, and prints "done", or the error that ended it. Habits:

forgets  never closes a session
closes   closes each session, and by that its connection, unless the server has done so
follows  asks by HTTP/1.0, and closes when the server has
aborts   closes with SO_LINGER 0, when it has the answer
binds    calls bind() before connect(), and keeps the connection
lets     does so with IP_BIND_ADDRESS_NO_PORT
reuses   has one session for all
"""

import socket
import struct
import sys
from urllib.parse import urlsplit

import requests

# Of linux/in.h, which Python does not name before 3.12.
IP_BIND_ADDRESS_NO_PORT = 24

SESSIONS = []


def new_session():
    session = requests.Session()
    session.trust_env = False
    return session


def follow(url):
    with socket.create_connection(end_of(url)) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        while connection.recv(4096):
            pass


def abort(url):
    with socket.create_connection(end_of(url)) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        connection.recv(4096)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def bind(url, no_port):
    connection = socket.socket()
    SESSIONS.append(connection)
    connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, no_port)
    connection.bind(("127.0.0.1", 0))
    connection.connect(end_of(url))


def end_of(url):
    to = urlsplit(url)
    return to.hostname, to.port


RAW = {
    "follows": follow,
    "aborts": abort,
    "binds": lambda url: bind(url, 0),
    "lets": lambda url: bind(url, 1),
}


def fetch(url, habit):
    if habit in RAW:
        RAW[habit](url)
        return
    if habit == "reuses" and SESSIONS:
        session = SESSIONS[0]
    else:
        session = new_session()
    response = session.get(url)
    assert response.ok
    if habit == "closes":
        session.close()
    elif session not in SESSIONS:
        SESSIONS.append(session)


def main():
    url, habit = sys.argv[1:]
    print("here", flush=True)
    for line in sys.stdin:
        try:
            for _ in range(int(line)):
                fetch(url, habit)
        except requests.ConnectionError as error:
            print(error, flush=True)
        else:
            print("done", flush=True)


main()
