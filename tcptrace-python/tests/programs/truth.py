"""Says its own stack, and then blocks on the very same line. `tell(); read()` are one line for that."""
import asyncio, functools, json, os, socket, sys, threading

PIPE = 0  # Standard input: what tests it ends it by closing it.


def name(code):
    return getattr(code, "co_qualname", code.co_name)


def stack(frame):
    frames = []
    while frame is not None:
        frames.append([frame.f_code.co_filename, name(frame.f_code), frame.f_lineno])
        frame = frame.f_back
    return frames


def say(frames):
    sys.stdout.write(json.dumps({"pid": os.getpid(), "tid": threading.get_native_id(), "frames": frames}) + "\n")
    sys.stdout.flush()


def tell():
    say(stack(sys._getframe(1)))


def nested():
    def outer():
        inner()

    def inner():
        tell(); os.read(PIPE, 1)

    outer()


class Client:
    def open(self, address):
        self.socket = socket.socket()
        return self._connect(
            address,
        )

    def _connect(self, address):
        tell(); self.socket.connect(address)

    @classmethod
    def made(cls):
        cls().open(full_listener())

    @property
    def answer(self):
        tell(); return os.read(PIPE, 1)


def full_listener():
    """A listener whose queue is full, so that connect() waits."""
    global LISTENER, CLIENTS
    LISTENER = socket.socket()
    LISTENER.bind(("127.0.0.1", 0))
    LISTENER.listen(0)
    CLIENTS = [socket.socket() for _ in range(4)]
    for client in CLIENTS:
        client.setblocking(False)
        client.connect_ex(LISTENER.getsockname())
    return LISTENER.getsockname()


def connect():
    Client.made()


def accept():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    tell(); listener.accept()


def receive():
    one, other = socket.socketpair()
    with other:
        try:
            tell(); one.recv(1)
        finally:
            pass


def a_property():
    Client().answer


def a_lambda():
    call = lambda: (tell(), os.read(PIPE, 1))
    [call() for _ in range(1)]


def generator():
    def numbers():
        yield 1
        tell(); os.read(PIPE, 1)
        yield 2

    def through():
        yield from numbers()

    for _ in through():
        pass


def decorated():
    def again(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    @again
    @again
    def work(one, *, two):
        tell(); os.read(PIPE, 1)

    work(1, two=2)


def through_c():
    def key(_):
        tell(); return os.read(PIPE, 1)

    sorted([2, 1], key=key)


def run_asyncio():
    async def leaf():
        await asyncio.sleep(0)
        tell(); os.read(PIPE, 1)

    async def middle():
        await leaf()

    async def main():
        await asyncio.gather(asyncio.create_task(middle()), asyncio.sleep(0))

    asyncio.run(main())


def threads():
    def waits(done):
        done.wait()

    def works():
        tell(); os.read(PIPE, 1)

    done = threading.Event()
    for _ in range(5):
        threading.Thread(target=waits, args=(done,), daemon=True).start()
    threading.Thread(target=works).start()


def forked():
    def child():
        tell(); os.read(PIPE, 1)

    pid = os.fork()
    if pid == 0:
        child()
    else:
        os.read(PIPE, 1)


def many_lines():
    source = "\n" * 70000 + "def far():\n" + "  pass\n" * 300 + "  tell(); os.read(PIPE, 1)\nfar()\n"
    exec(compile(source, "<far>", "exec"), globals())


def odd_names():
    for file, function in [("\u00fcber.py", "gr\u00fc\u00dfe"), ("\u4e2d.py", "\u4e2d"), ("\U0001f40d \x1b[31m.py", "f")]:
        source = f"def {function}(rest):\n\n  rest()\n"
        spaces = {}
        exec(compile(source, file, "exec"), spaces)
        before = globals().get("CALL", lambda: (tell(), os.read(PIPE, 1)))
        globals()["CALL"] = functools.partial(spaces[function], before)
    CALL()


def recursion():
    def deep(n):
        if n == 0:
            tell(); os.read(PIPE, 1)
        else:
            deep(n - 1)

    deep(100)


def subinterpreter():
    try:
        import _interpreters as interpreters
        run = interpreters.exec
    except ImportError:
        import _xxsubinterpreters as interpreters
        run = interpreters.run_string
    source = open(__file__).read().split("def nested")[0]
    script = "\ndef inside():\n    say(stack(sys._getframe(0)) + OUTER); os.read(PIPE, 1)\ninside()\n"
    other = interpreters.create()
    run(other, f"OUTER = {stack(sys._getframe(0))}\nimport json, os, sys\n" + plain(source) + script)


def plain(source):
    """Without the modules that not every interpreter can load."""
    source = source.replace("import asyncio, functools, json, os, socket, sys, threading", "")
    return source.replace("threading.get_native_id()", str(threading.get_native_id()))


globals()[sys.argv[1]]()
