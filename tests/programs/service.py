"""A service that forgets some of the responses that it asks for.

service.py ADDRESS LEAKED CLOSED: an HTTP server at that address closes every connection after its
answer, and a client asks it so many times without ever closing the response, and so many times as one
should. Prints the server's port, then "done", and sleeps until its standard input ends.
"""

import socket
import sys
import threading

import requests

FORGOTTEN = []


def serve(listener):
    while True:
        connection, _ = listener.accept()
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        connection.close()


def ask(session, url):
    return session.get(url, stream=True)


def fetch_item(url):
    session = requests.Session()
    FORGOTTEN.append((session, ask(session, url)))


def fetch_page(url):
    session = requests.Session()
    response = ask(session, url)
    assert response.ok
    release(response)


def release(response):
    response.close()


def main():
    address, leaked, closed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    listener = socket.create_server((address, 0))
    port = listener.getsockname()[1]
    print(port, flush=True)
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    # Whoever looks for Pythons needs a moment to find this one.
    sys.stdin.readline()
    url = f"http://{address}:{port}/"
    for _ in range(leaked):
        fetch_item(url)
    for _ in range(closed):
        fetch_page(url)
    print("done", flush=True)
    sys.stdin.readline()


main()
