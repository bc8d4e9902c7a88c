"""A coordinator and its workers, each a process on a host."""
import subprocess
import time

from .proxy import Proxy

WORKERS, MOST_WORKERS, LEAST_WORKERS, LEASE_S = 4, 6, 3, 1.0


class Worker:
    """A worker process, the host that it is on, and the proxy before its ring."""

    def __init__(self, process, host, proxy):
        self.process, self.host, self.proxy = process, host, proxy

    def is_alive(self):
        return self.process.poll() is None


class Cluster:
    """Starts them all. `certs`: None for connections in clear; `more`: what the coordinator is told beside its run."""

    def __init__(self, strath, config, out, log, place, certs, more, disk, draws):
        self.strath, self.config, self.out, self.place, self.more, self.draws = strath, config, out, place, more, draws
        self.disk = disk
        self.trust = ["--certs", certs] if certs else place.insecure
        self.certs = ["--certs", certs] if certs else []
        self.address = place.address(0)
        self.log_path, self.log = log, open(log, "ab")
        self.workers = []
        self.coordinator = self.start(0, *self.coordinating())
        self.fill_up(WORKERS)

    def start(self, host, *command):
        command = [*self.place.prefix(host), self.strath, *command]
        return subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def coordinating(self, *more):
        run = ["coordinator", "--config", self.config, "--listen", self.address, "--min-workers", 1, "--out", self.out]
        return [*run, *self.trust, *self.more, *more]

    def coordinate_again(self):
        self.coordinator = self.start(0, *self.coordinating("--resume"))

    def join(self):
        """Starts a worker on a host that has none; on a network a third of them have a proxy before their ring."""
        host = next(host for host in range(1, MOST_WORKERS + 1) if host not in [worker.host for worker in self.living()])
        proxy, where = None, []
        if self.place.is_network and self.draws.random() < 1 / 3:
            prefix, before = self.place.proxy(host)
            ring = self.place.address(host, 7800)
            proxy, where = Proxy(prefix, before, ring), ["--listen", ring, "--advertise", before]
        process = self.start(host, "worker", "--coordinator", self.address, *self.certs, *where)
        self.workers.append(Worker(process, host, proxy))

    def living(self):
        for worker in self.workers:
            if worker.proxy and not worker.is_alive():
                worker.proxy.end()
        self.workers = [worker for worker in self.workers if worker.is_alive()]
        return self.workers

    def fill_up(self, least):
        """Replaces workers that were given up or asked to leave, as whoever watches over a cluster does."""
        while len(self.living()) < least:
            self.join()

    def wait_for_workers(self, seconds):
        """Whether all workers end in this time."""
        until = time.time() + seconds
        while self.living() and time.time() < until:
            time.sleep(0.02)
        return not self.workers

    def said(self):
        self.log.flush()
        return self.log_path.read_text(errors="replace")

    def end(self):
        for process in [self.coordinator, *[worker.process for worker in self.workers]]:
            if process.poll() is None:
                process.kill()
                process.wait()
        for worker in self.workers:
            if worker.proxy:
                worker.proxy.end()
        self.log.close()
