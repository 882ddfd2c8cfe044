"""leak ADDRESS PORT: connects in a method, below a comprehension, and never closes."""

import socket
import sys


class Pool:
    def fresh(self, to):
        return socket.create_connection(to)


def main():
    to = (sys.argv[1], int(sys.argv[2]))
    print("here", flush=True)
    sys.stdin.readline()
    kept = [Pool().fresh(to) for _ in range(1)]
    print("connected", kept[0].fileno(), flush=True)
    sys.stdin.readline()


main()
