"""A proxy in one thread, whose backend never answers.

proxy.py ADDRESS PORT HABIT: listens there with a backlog of 4, prints "here", and serves until it is ended. What
asks for "big" is sent more than any buffer takes. Habits:

careless  takes EPOLLHUP for the end of a client, which comes when both sides have closed, and writes without a
          time limit
careful   watches for EPOLLRDHUP, and limits its writes
"""

import select
import socket
import sys

BIG = bytes(64 << 20)


class Proxy:
    def __init__(self, address, port, careful):
        self.careful = careful
        self.clients = {}
        self.listener = socket.create_server((address, port), backlog=4)
        self.epoll = select.epoll()
        self.epoll.register(self.listener, select.EPOLLIN)

    def serve(self):
        while True:
            for fd, events in self.epoll.poll():
                if fd == self.listener.fileno():
                    self.accept()
                else:
                    self.handle(fd, events)

    def accept(self):
        client, _ = self.listener.accept()
        events = select.EPOLLIN | select.EPOLLET
        if self.careful:
            events |= select.EPOLLRDHUP
            client.settimeout(0.2)
        self.clients[client.fileno()] = client
        self.epoll.register(client, events)

    def handle(self, fd, events):
        if events & (select.EPOLLERR | select.EPOLLHUP | select.EPOLLRDHUP):
            self.clients.pop(fd).close()
            return
        request = self.clients[fd].recv(4096)
        if request == b"big\n":
            self.answer(fd)

    def answer(self, fd):
        try:
            self.clients[fd].sendall(BIG)
        except TimeoutError:
            self.clients.pop(fd).close()


def main():
    address, port, habit = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    proxy = Proxy(address, port, habit == "careful")
    print("here", flush=True)
    proxy.serve()


main()
