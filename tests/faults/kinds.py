"""The faults. Each is done to a cluster, takes its time, and is undone.

It gives back the moments at which it began and was over, in Unix seconds, or None where there was nobody to whom it could happen.
"""
import signal
import subprocess
import time
from contextlib import contextmanager

from .cluster import LEASE_S, MOST_WORKERS
from .freezer import frozen
from .memory import turn_over

PATIENCE_S = 30  # of a disk that is full: until somebody says so


class Unanswered(Exception):
    """A fault was not met as it has to be."""


def moment():
    now = time.time()
    return now, now


def a_while(cluster):
    """Shorter than the lease, or longer."""
    least, most = cluster.draws.choice([(0.05, 0.8), (1.2, 4)])
    return cluster.draws.uniform(least, most) * LEASE_S


def victim(cluster, least=1):
    """A worker, where so many live."""
    living = cluster.living()
    return cluster.draws.choice(living) if len(living) >= least else None


def stopped(process, seconds):
    since = time.time()
    process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    process.send_signal(signal.SIGCONT)
    return since, time.time()


def worker_killed(cluster):
    if worker := victim(cluster, 2):
        worker.process.kill()
        return moment()


def worker_stopped(cluster):
    if worker := victim(cluster):
        return stopped(worker.process, a_while(cluster))


def training_hangs(cluster):
    """Its process goes on, and says so; for longer than what is borne of steps this short, or not."""
    if worker := victim(cluster, 2):
        since = time.time()
        if frozen(worker.process.pid, LEASE_S * cluster.draws.choice([0.5, 2, 7])):
            return since, time.time()


def worker_leaves(cluster):
    if worker := victim(cluster, 2):
        worker.process.terminate()
        return moment()


def worker_starts(cluster):
    if len(cluster.living()) < MOST_WORKERS:
        cluster.join()
        return moment()


def coordinator_killed(cluster):
    since = time.time()
    cluster.coordinator.kill()
    cluster.coordinator.wait()
    time.sleep(cluster.draws.uniform(0, 1.5))
    cluster.coordinate_again()
    return since, time.time()


def coordinator_stopped(cluster):
    return stopped(cluster.coordinator, a_while(cluster))


def all_killed(cluster):
    """Everything at once; the run goes on from its newest checkpoint."""
    since = time.time()
    for process in [cluster.coordinator, *[worker.process for worker in cluster.workers]]:
        process.kill()
        process.wait()
    cluster.coordinate_again()
    cluster.fill_up(MOST_WORKERS - 2)
    return since, time.time()


def host_unplugged(cluster):
    if worker := victim(cluster, 2):
        return unplugged(cluster, worker.host)


def coordinator_unplugged(cluster):
    return unplugged(cluster, 0)


def unplugged(cluster, host):
    since = time.time()
    cluster.place.unplug(host)
    time.sleep(a_while(cluster))
    cluster.place.plug(host)
    return since, time.time()


@contextmanager
def lost(cluster, ways):
    """While what goes these (source, sink) ways is lost."""
    for way in ways:
        cluster.place.cut(*way)
    yield
    for way in ways:
        cluster.place.heal(*way)


def ways_between(cluster, one, other):
    """One of the two ways, or both."""
    both = [(one, other), (other, one)]
    return cluster.draws.choice([both, both[:1], both[1:]])


def cut_from_coordinator(cluster):
    if worker := victim(cluster, 2):
        return cut(cluster, ways_between(cluster, worker.host, 0))


def cut_from_peer(cluster):
    if len(living := cluster.living()) >= 2:
        one, other = cluster.draws.sample(living, 2)
        return cut(cluster, ways_between(cluster, one.host, other.host))


def cut(cluster, ways):
    since = time.time()
    with lost(cluster, ways):
        time.sleep(a_while(cluster))
    return since, time.time()


def host_slowed(cluster):
    if worker := victim(cluster):
        since = time.time()
        cluster.place.slow(worker.host, cluster.draws.choice([1, 4, 16]))
        time.sleep(a_while(cluster))
        cluster.place.speed_up(worker.host)
        return since, time.time()


def proxied(cluster):
    workers = [worker for worker in cluster.living() if worker.proxy]
    return cluster.draws.choice(workers).proxy if workers else None


def ring_delayed(cluster):
    if proxy := proxied(cluster):
        since = time.time()
        proxy.tell(f"delay {cluster.draws.uniform(0.01, 0.2)}")
        time.sleep(a_while(cluster))
        proxy.tell("delay 0")
        return since, time.time()


def ring_reset(cluster):
    if (proxy := proxied(cluster)) and proxy.tell("cut"):
        return moment()


def bit_on_the_wire(cluster):
    if (proxy := proxied(cluster)) and proxy.tell("flip"):
        return moment()


def bit_in_memory(cluster):
    # Of two that differ nobody is right.
    if (worker := victim(cluster, 3)) and turn_over(worker.process.pid, cluster.out):
        return moment()


def disk_full(cluster):
    """The run ends and says why; with room again it goes on from what is on the disk."""
    since, said = time.time(), len(cluster.said())
    cluster.disk.fill(cluster.draws.choice([0, 1 << 16]))
    try:
        code = cluster.coordinator.wait(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired as error:
        raise Unanswered(f"the coordinator goes on {PATIENCE_S} s with a full disk") from error
    if code == 0:
        # It was through before it noticed.
        cluster.disk.free()
        return since, time.time()
    errors = [line for line in cluster.said()[said:].splitlines() if line.startswith("error:") and "free space" in line]
    if code != 1 or not errors:
        raise Unanswered(f"the coordinator ended with {code} on a full disk and said nothing of it")
    if not cluster.wait_for_workers(PATIENCE_S):
        raise Unanswered("a worker lives on though the coordinator said that the run is over")
    cluster.disk.free()
    cluster.coordinate_again()
    cluster.fill_up(MOST_WORKERS - 2)
    return since, time.time()


class Kind:
    """A fault, in the words of the table; `weight`: how often it is drawn beside the others; `needs`: what has to be at hand; `pauses`: whether the
    record pauses for as long as the fault lasts, so that what counts is how long it takes after that."""

    def __init__(self, name, act, weight=1, needs=(), pauses=False):
        self.name, self.act, self.weight, self.needs, self.pauses = name, act, weight, set(needs), pauses


KINDS = [
    Kind("worker killed", worker_killed, 2),
    Kind("worker stopped", worker_stopped, 2),
    Kind("a worker's training stands still", training_hangs, needs=["freezer"]),
    Kind("worker asked to leave", worker_leaves),
    Kind("worker started", worker_starts, 4),
    Kind("coordinator killed, started again", coordinator_killed, 2, pauses=True),
    Kind("coordinator stopped", coordinator_stopped, pauses=True),
    Kind("everything killed, started again", all_killed, pauses=True),
    Kind("disk full, freed and started again", disk_full, needs=["disk"], pauses=True),
    Kind("a bit of a worker's weights turned over", bit_in_memory, needs=["memory"]),
    Kind("worker's host unplugged", host_unplugged, 2, needs=["network"]),
    Kind("coordinator's host unplugged", coordinator_unplugged, needs=["network"], pauses=True),
    Kind("worker cut off from the coordinator", cut_from_coordinator, 2, needs=["network"]),
    Kind("two workers cut off from each other", cut_from_peer, 2, needs=["network"]),
    Kind("host slowed to 1 to 16 Mbit/s", host_slowed, 2, needs=["network"]),
    Kind("what goes to a worker delayed", ring_delayed, needs=["network"]),
    Kind("connections to a worker reset", ring_reset, 2, needs=["network"]),
    Kind("a bit on its way to a worker turned over", bit_on_the_wire, 2, needs=["network"]),
]
