"""One thread of a process stands still while the others go on (the freezer of control groups, version 1)."""
import os
import time
from contextlib import contextmanager
from pathlib import Path

FREEZER = Path("/sys/fs/cgroup/freezer")
LOOK_S = 0.1


def can_freeze():
    """Whether groups can be made here."""
    try:
        with group():
            return True
    except OSError:
        return False


@contextmanager
def group():
    """A group of threads, which are let go and back where they were at the end."""
    made = FREEZER / f"chaos-{os.getpid()}-{time.monotonic_ns()}"
    made.mkdir()
    try:
        yield made
    finally:
        (made / "freezer.state").write_text("THAWED")
        for thread in (made / "tasks").read_text().split():
            put(thread, FREEZER)
        made.rmdir()


def put(thread, where):
    try:
        (where / "tasks").write_text(str(thread))
    except ProcessLookupError:  # it has ended
        pass


def ticks(pid):
    """The time that each thread of a process has had of the processors."""
    found = {}
    for thread in Path(f"/proc/{pid}/task").iterdir():
        fields = (thread / "stat").read_text().rpartition(")")[2].split()
        found[thread.name] = int(fields[11]) + int(fields[12])
    return found


def busiest(pid):
    """The thread that computes most; None where the process is gone or idle."""
    try:
        before = ticks(pid)
        time.sleep(LOOK_S)
        spent = {thread: now - before.get(thread, now) for thread, now in ticks(pid).items()}
    except OSError:
        return None
    thread = max(spent, key=spent.get)
    return thread if spent[thread] > 0 else None


def frozen(pid, seconds):
    """Has the busiest thread of a process stand still for so long; gives back whether there was one."""
    thread = busiest(pid)
    if thread is None:
        return False
    with group() as place:
        put(thread, place)
        (place / "freezer.state").write_text("FROZEN")
        time.sleep(seconds)
    return True
