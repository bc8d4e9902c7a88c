"""A proxy before a worker's ring: it delays, cuts and turns over bits of what the others send there.

    python3 proxy.py LISTEN TARGET     (addresses, IP:PORT)

It obeys lines of standard input, and answers each with a line: `delay SECONDS` holds each piece back for so long (0: no more), `cut` resets every
connection, `flip` turns one bit of the next piece over. It ends when standard input does.
"""
import errno
import socket
import struct
import subprocess
import sys
import threading
import time


class Proxy:
    """The process, as who started it sees it."""

    def __init__(self, prefix, listen, target):
        command = [*prefix, sys.executable, __file__, listen, target]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if self.process.stdout.readline() != "listening\n":
            raise RuntimeError(f"no proxy at {listen}; what it said is above")

    def tell(self, words):
        """Its answer: whether something happened."""
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip() == "done"

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Relay:
    """The connections through the proxy, and what is to happen to them."""

    def __init__(self, target):
        self.target, self.lock = target, threading.Lock()
        self.delay, self.flips, self.flipped = 0.0, 0, threading.Event()
        self.open = set()

    def take(self, accepted):
        try:
            onward = socket.create_connection(self.target, timeout=2)
        except OSError:
            reset(accepted)
            return
        onward.settimeout(None)
        for end in (accepted, onward):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self.lock:
            self.open |= {accepted, onward}
        for pair in ((accepted, onward, True), (onward, accepted, False)):
            threading.Thread(target=self.carry, args=pair, daemon=True).start()

    def carry(self, source, sink, is_data):
        """One direction of a connection. The ring's values go from whoever dialled to whoever accepted."""
        try:
            while piece := source.recv(1 << 16):
                if self.delay:
                    time.sleep(self.delay)
                sink.sendall(self.spoiled(piece) if is_data and self.flips else piece)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, sink):
                reset(end)
        with self.lock:
            self.open.discard(source)

    def spoiled(self, piece):
        with self.lock:
            if not self.flips:
                return piece
            self.flips -= 1
        middle = len(piece) // 2
        self.flipped.set()
        return piece[:middle] + bytes([piece[middle] ^ 16]) + piece[middle + 1 :]

    def obey(self, words):
        if words[0] == "delay":
            self.delay = float(words[1])
            return True
        if words[0] == "cut":
            with self.lock:
                ends, self.open = self.open, set()
            for end in ends:
                reset(end)
            return bool(ends)
        self.flipped.clear()
        self.flips = 1
        happened = self.flipped.wait(2)
        self.flips = 0
        return happened


def reset(end):
    """Closes it as a host does that forgot of it."""
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        end.shutdown(socket.SHUT_RDWR)
        end.close()
    except OSError:
        pass


def parsed(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


def listening(address, deadline_s=5):
    """A listener there, once a proxy before this one has let go of the address."""
    until = time.monotonic() + deadline_s
    while True:
        try:
            return socket.create_server(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                raise
            time.sleep(0.05)


def main(listen, target):
    relay, listener = Relay(parsed(target)), listening(parsed(listen))

    def accept():
        while True:
            accepted, _ = listener.accept()
            threading.Thread(target=relay.take, args=(accepted,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    print("listening", flush=True)
    for line in sys.stdin:
        print("done" if relay.obey(line.split()) else "nothing", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
