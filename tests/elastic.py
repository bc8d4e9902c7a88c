"""What a slow worker and a worker that comes cost the others: elastic.py [STRATH] [--repeat 5] [--only slow|join]

slow: four workers on quotas of the processor (cgroups, as root): all at the same, then one at half of it. Steps a second of the second over
3.5 / 4 of the first: 1 is what a perfect division of the work would reach.
join: a third worker comes while two train; how long no step is completed around its first, and how long a step takes otherwise.
Medians of `repeat`, one after the other in turns.
"""
import argparse
import contextlib
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from faults import record

LONG = ["run.steps=1000000", "cluster.threads=1", "checkpoint.every_steps=100000"]
SMALL = ["--set", "batch.size=256", "--set", "batch.micro=4", "--set", "sam.m=4"]
MLP = ["--set", "data.kind=fashion-mnist", "--set", "data.path=/usr/share/datasets/fashion-mnist", "--set", "model.kind=mlp",
       "--set", "model.hidden=[1024,1024]", "--set", "batch.size=128", "--set", "sam.m=16"]
DEADLINE_S = 120
SETTLES_S, MEASURED_S = 25, 20


@contextlib.contextmanager
def cluster(strath, out, workers, *more):
    """A coordinator on the digits and a function that starts a worker; all are killed at the end."""
    config = Path(__file__).resolve().parent.parent / "configs/digits.toml"
    sets = [part for one in LONG for part in ("--set", one)]
    processes = []

    def start(*command, inside=None):
        begin = (lambda: (inside / "cgroup.procs").write_text(str(os.getpid()))) if inside else None
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        processes.append(subprocess.Popen([str(part) for part in (strath, *command)], preexec_fn=begin, **quiet))

    try:
        start("coordinator", "--config", config, "--listen", "127.0.0.1:0", "--out", out, "--min-workers", workers, *sets, *more)
        file = out / "coordinator.json"
        wait(file.exists)
        address = json.loads(file.read_text())["address"]
        yield lambda inside=None: start("worker", "--coordinator", address, inside=inside)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def wait(done):
    """Until something is so."""
    until = time.time() + DEADLINE_S
    while not done():
        if time.time() > until:
            raise SystemExit(f"not done in {DEADLINE_S} s")
        time.sleep(0.005)


@contextlib.contextmanager
def quota(name, cores):
    """A control group of so many cores."""
    unified = not Path("/sys/fs/cgroup/cpu").is_dir()
    group = Path("/sys/fs/cgroup" if unified else "/sys/fs/cgroup/cpu") / f"elastic-{os.getpid()}-{name}"
    group.mkdir()
    period = 10_000
    try:
        if unified:
            (group / "cpu.max").write_text(f"{int(cores * period)} {period}")
        else:
            (group / "cpu.cfs_period_us").write_text(str(period))
            (group / "cpu.cfs_quota_us").write_text(str(int(cores * period)))
        yield group
    finally:
        group.rmdir()


def speed(strath, shares):
    """Steps a second of workers on such shares of a core, once the work has been divided."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as groups:
        inside = [groups.enter_context(quota(n, share)) for n, share in enumerate(shares)]
        out = Path(folder) / "run"
        with cluster(strath, out, len(shares), *SMALL) as start:
            for group in inside:
                start(group)
            wait(lambda: record.newest_step(out) > 10)
            time.sleep(SETTLES_S)
            since, before = time.time(), record.newest_step(out)
            time.sleep(MEASURED_S)
            return (record.newest_step(out) - before) / (time.time() - since)


def slow(strath, repeat):
    even, uneven = [], []
    for _ in range(repeat):
        even.append(speed(strath, [0.4] * 4))
        uneven.append(speed(strath, [0.4, 0.4, 0.2, 0.4]))
    ratios = [b / (a * 3.5 / 4) for a, b in zip(even, uneven)]
    print(f"slow: {statistics.median(even):.1f} steps/s, with one at half speed {statistics.median(uneven):.1f}; of the ideal "
          f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})", flush=True)


def pause(strath, more):
    """Seconds without a step around the first of a third worker, and the median between other steps."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        with cluster(strath, out, 2, *more) as start:
            start()
            start()
            wait(lambda: record.newest_step(out) > 60)
            start()
            generations = lambda: [line for line in (json.loads(text) for text in (out / "metrics.jsonl").read_text().split("\n")[:-1])
                                   if line["kind"] == "cluster"]
            wait(lambda: any(len(line["members"]) == 3 for line in generations()))
            first = next(line for line in generations() if len(line["members"]) == 3)["step"] + 1
            wait(lambda: record.newest_step(out) > first + 20)
            at = dict(record.steps(out))
        gaps = {step: at[step] - at[step - 1] for step in at if step - 1 in at}
        return gaps[first], statistics.median(gaps[step] for step in gaps if step < first), max(gaps[step] for step in gaps if 10 < step)


def join(strath, repeat):
    for name, more in {"digits": [], "MLP 784-1024-1024-10": MLP}.items():
        found = [pause(strath, more) for _ in range(repeat)]
        around, usual, longest = (sorted(one[k] * 1000 for one in found) for k in range(3))
        print(f"join, {name}: {statistics.median(around):.0f} ms from the last step before to the first after (worst {around[-1]:.0f}); a step takes "
              f"{statistics.median(usual):.1f} ms; longest time between steps in the whole run, median {statistics.median(longest):.0f} ms", flush=True)


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("strath", type=Path, nargs="?", default=Path("target/release/strath"))
    flags.add_argument("--repeat", type=int, default=5)
    flags.add_argument("--only", choices=["slow", "join"])
    flags = flags.parse_args()
    for name, measure in {"slow": slow, "join": join}.items():
        if flags.only in (None, name):
            measure(flags.strath.resolve(), flags.repeat)


if __name__ == "__main__":
    main()
