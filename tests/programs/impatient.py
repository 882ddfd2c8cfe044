"""Clients that wait a second for an answer, and no longer.

impatient.py ADDRESS PORT: prints "here". For every line with a number, so many of them ask at once, and give up
after a second; prints "gone" when the last has. For "big", one asks for much and reads nothing of it; prints
"stalled" when it has asked.
"""

import socket
import sys
import threading

PATIENCE = 1.0
STALLED = []


def ask(to):
    try:
        with socket.create_connection(to, timeout=PATIENCE) as connection:
            connection.sendall(b"small\n")
            connection.recv(4096)
    except OSError:
        pass


def ask_at_once(to, count):
    threads = [threading.Thread(target=ask, args=(to,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def stall(to):
    connection = socket.create_connection(to)
    connection.sendall(b"big\n")
    STALLED.append(connection)


def main():
    to = sys.argv[1], int(sys.argv[2])
    print("here", flush=True)
    for line in sys.stdin:
        if line == "big\n":
            stall(to)
            print("stalled", flush=True)
        else:
            ask_at_once(to, int(line))
            print("gone", flush=True)


main()
