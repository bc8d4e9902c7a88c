"""Where the processes live: all on loopback, or each on a host of its own.

A host is a network namespace whose only link goes to a bridge in a namespace of its own, so that nothing of this machine's network is touched.
"""
import contextlib
import itertools
import os
import pathlib
import shutil
import socket
import subprocess


class Loopback:
    """One host: the ring goes through shared memory."""

    is_network = False
    insecure = []

    turns = itertools.count()

    def prefix(self, _):
        return []

    def address(self, _, port=0):
        """An address of a host; without a port any that is free, of those that the system gives to nobody by itself."""
        return f"127.0.0.1:{port or self.vacant()}"

    def vacant(self):
        given_out = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        for turn in self.turns:
            port = 1024 + (os.getpid() * 101 + turn) % (given_out - 1024)
            with socket.socket() as free, contextlib.suppress(OSError):
                free.bind(("127.0.0.1", port))
                return port

    def end(self):
        pass


class Hosts:
    """`count` hosts, 10.78.0.1 and up. Host 0 is the coordinator's."""

    is_network = True
    insecure = ["--insecure"]

    numbers = itertools.count()

    def __init__(self, count):
        self.name, self.count = f"chaos{os.getpid()}-{next(self.numbers)}", count
        self.made, self.drops = [], False
        try:
            self.make()
        except (OSError, subprocess.CalledProcessError):
            self.end()
            raise

    def make(self):
        hub = self.add("hub")
        ip(f"-n {hub} link add bridge type bridge")
        ip(f"-n {hub} addr add 10.78.0.254/24 dev bridge")
        ip(f"-n {hub} link set bridge up")
        for host in range(self.count):
            name = self.add(host)
            ip(f"-n {hub} link add port{host} type veth peer name eth0 netns {name}")
            ip(f"-n {hub} link set port{host} master bridge up")
            ip(f"-n {hub} addr add 10.78.0.{101 + host}/24 dev bridge")  # of the proxy before it
            ip(f"-n {name} addr add {self.ip(host)}/24 dev eth0")
            ip(f"-n {name} link set eth0 up")
            ip(f"-n {name} link set lo up")
        probe = [*self.prefix(0), "iptables", "-A", "INPUT", "-s", "10.78.0.253", "-j", "DROP"]
        self.drops = shutil.which("iptables") is not None and quiet(*probe)

    def add(self, what):
        name = f"{self.name}-{what}"
        ip(f"netns add {name}")
        self.made.append(name)
        return name

    def prefix(self, host):
        return ["ip", "netns", "exec", f"{self.name}-{host}"]

    def ip(self, host):
        return f"10.78.0.{1 + host}"

    def address(self, host, port=7700):
        return f"{self.ip(host)}:{port}"

    def proxy(self, host):
        """Where the proxy before a host's ring listens, and what to start it with."""
        return self.prefix("hub"), f"10.78.0.{101 + host}:7900"

    def unplug(self, host):
        """Nothing reaches it and it reaches nothing, without anybody being told."""
        ip(f"-n {self.name}-hub link set port{host} down")

    def plug(self, host):
        ip(f"-n {self.name}-hub link set port{host} up")

    def cut(self, source, sink):
        """What `source` sends to `sink` goes nowhere: unnoticed where there is iptables, else without a route."""
        if self.drops:
            ip(f"netns exec {self.name}-{sink} iptables -A INPUT -s {self.ip(source)} -j DROP")
        else:
            ip(f"-n {self.name}-{source} route add blackhole {self.ip(sink)}/32")

    def heal(self, source, sink):
        if self.drops:
            ip(f"netns exec {self.name}-{sink} iptables -D INPUT -s {self.ip(source)} -j DROP")
        else:
            ip(f"-n {self.name}-{source} route del blackhole {self.ip(sink)}/32")

    def slow(self, host, mbit):
        """Lets it send no more than so many Mbit/s."""
        tc(f"-n {self.name}-{host} qdisc add dev eth0 root tbf rate {mbit}mbit burst 16kb latency 100ms")

    def speed_up(self, host):
        tc(f"-n {self.name}-{host} qdisc del dev eth0 root")

    def end(self):
        for name in self.made:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)


def ip(arguments):
    subprocess.run(["ip", *arguments.split()], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def tc(arguments):
    subprocess.run(["tc", *arguments.split()], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def quiet(*command):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


def can_make_hosts():
    """Whether namespaces, a bridge and `tc tbf` are at hand."""
    try:
        hosts = Hosts(1)
    except (OSError, subprocess.CalledProcessError):
        return False
    try:
        hosts.slow(0, 10)
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        hosts.end()
    return True
