"""What `strath bench scale` predicts beside what is measured: scale.py [STRATH] [--repeat 3] [--only NAME] [--mbit 1000]
                                                        scale.py [STRATH] --allreduce

Predictions and measurements in turns, medians of `repeat`. Local cases run `strath bench step`. Cases over hosts run a coordinator and
workers in network namespaces joined by a bridge, each sending at most --mbit (tc tbf) and pinned to one core, as hosts of one core
would be (so two cores are two hosts); they need root and iproute2. With --allreduce it compares instead `bench allreduce --algorithm auto` with ring and direct,
locally and in namespaces: the time of the automatic choice over the best of all.
"""
import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FASHION = {"data.kind": "fashion-mnist", "data.path": "/usr/share/datasets/fashion-mnist", "batch.size": 128, "optimizer.lr": 0.01,
           "optimizer.momentum": 0.9, "optimizer.weight_decay": 5e-4, "sam.rho": 0.05, "cluster.threads": 1}
MLP = {**FASHION, "model.kind": "mlp", "model.hidden": [1024, 1024], "sam.m": 32}
RESNET20 = {**FASHION, "model.kind": "resnet", "model.depth": 20, "sam.m": 32}
CASES = {  # name: settings, workers, hosts (0: this machine)
    "MLP, 2 local": (MLP, 2, 0),
    "MLP, 4 local": (MLP, 4, 0),
    "MLP, 2 hosts of 1": (MLP, 2, 2),
    "MLP, 2 hosts of 2": (MLP, 4, 2),
    "ResNet-20, 2 local": (RESNET20, 2, 0),
    "ResNet-20, 4 local": (RESNET20, 4, 0),
    "ResNet-20, 2 hosts of 1": (RESNET20, 2, 2),
    "ResNet-20, 2 hosts of 2": (RESNET20, 4, 2),
}
STEPS = 20
TOML = '[run]\nname = "scale"\n[data]\nkind = "fashion-mnist"\npath = "/"\n[model]\nkind = "mlp"\nhidden = [1]\n'


def run(*command, **more):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=300, **more)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}\nended with {done.returncode}: {done.stderr.strip()[-800:]}")
    return done.stdout


def lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@contextlib.contextmanager
def hosts(count, mbit):
    """Namespaces at 10.78.0.1, .2, ... on a bridge in one of its own, out of reach of the machine's packet filter."""
    names, switch = [f"scale{os.getpid()}h{n}" for n in range(count)], f"scale{os.getpid()}s"
    try:
        run("ip", "netns", "add", switch)
        run("ip", "-n", switch, "link", "add", "bridge", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "bridge", "up")
        for n, name in enumerate(names):
            run("ip", "netns", "add", name)
            run("ip", "-n", switch, "link", "add", f"port{n}", "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "-n", switch, "link", "set", f"port{n}", "master", "bridge", "up")
            run("ip", "-n", name, "addr", "add", f"10.78.0.{n + 1}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("tc", "-n", name, "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", f"{mbit}mbit", "burst", "128kb", "latency", "100ms")
        yield names
    finally:
        for name in [*names, switch]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def cores():
    return sorted(os.sched_getaffinity(0))


def on(names, n):
    """What a command of host n begins with: its namespace, and one core of its own."""
    return ["ip", "netns", "exec", names[n], "taskset", "-c", str(cores()[n % len(cores())])]


def predict(strath, config, workers, on_hosts, mbit):
    """Where several hosts share this machine each predicts for itself, at the same time, as memory is then as busy as in a run."""
    command = [strath, "bench", "scale", config, "--workers", workers, "--per-host", workers // (on_hosts or 1), "--link-gbit", mbit / 1000,
               "--latency-us", 20, "--steps", STEPS, "--json"]
    pins = [["taskset", "-c", str(cores()[n % len(cores())])] for n in range(on_hosts)] or [[]]
    started = [subprocess.Popen([str(c) for c in [*pin, *command]], stdout=subprocess.PIPE, text=True) for pin in pins]
    return statistics.mean(lines(process.communicate(timeout=300)[0])[-1]["step_ms"] for process in started)


def measure(strath, config, workers, names):
    if not names:
        return lines(run(strath, "bench", "step", config, "--workers", workers, "--steps", STEPS, "--json"))[-1]["ms"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        coordinator = [*on(names, 0), strath, "coordinator", "--config", config, "--listen", "10.78.0.1:7700", "--insecure",
                       "--min-workers", workers, "--out", out, "--set", f"run.steps={STEPS}", "--set", "run.eval_every_epochs=1000000",
                       "--set", "checkpoint.every_steps=1000000", "--set", "cluster.gather_ms=200"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started = [subprocess.Popen([str(c) for c in coordinator], **quiet)]
        # In order of host, so that neighbours in rank share one.
        for n in range(workers):
            worker = [*on(names, n * len(names) // workers), strath, "worker", "--coordinator", "10.78.0.1:7700"]
            started.append(subprocess.Popen([str(c) for c in worker], **quiet))
            time.sleep(0.3)
        codes = [process.wait(timeout=300) for process in started]
        if any(codes):
            raise SystemExit(f"workers over hosts ended with {codes}")
        steps = [line["step_s"] for line in lines((out / "metrics.jsonl").read_text()) if line["kind"] == "step"]
        return 1e3 * statistics.median(steps[5:])


def steps(flags):
    print("| configuration | predicted, ms | measured, ms | ratio |\n| --- | --- | --- | --- |")
    for name, (sets, workers, on_hosts) in CASES.items():
        if flags.only not in name:
            continue
        with tempfile.TemporaryDirectory() as folder, hosts(on_hosts, flags.mbit) if on_hosts else contextlib.nullcontext() as names:
            base, config = Path(folder) / "base.toml", Path(folder) / "run.toml"
            base.write_text(TOML)
            arguments = [f"--set={key}={json.dumps(value)}" for key, value in sets.items()]
            effective = Path(folder) / "effective"
            # What train writes is a whole configuration.
            run(flags.strath, "train", base, "--out", effective, *arguments, "--set", "run.steps=1", "--set", "run.eval_every_epochs=1000000")
            config.write_text((effective / "config.toml").read_text())
            pairs = [(predict(flags.strath, config, workers, on_hosts, flags.mbit), measure(flags.strath, config, workers, names))
                     for _ in range(flags.repeat)]
        predicted, measured = (statistics.median(column) for column in zip(*pairs))
        print(f"| {name} | {predicted:.2f} | {measured:.2f} | {statistics.median(p / m for p, m in pairs):.2f} |", flush=True)


def ranks(strath, workers, names, sizes, algorithm):
    """Times and algorithms by size, of ranks in namespaces or on this machine."""
    start = []
    for rank in range(workers):
        n = rank * len(names) // workers if names else 0
        host = [*on(names, n), strath] if names else [strath]
        address = f"10.78.0.{n + 1}" if names else "127.0.0.1"
        command = [*host, "bench", "allreduce-rank", "--rank", rank, "--key", "0" * 32, "--workers", workers, "--sizes", sizes,
                   "--algorithm", algorithm, "--listen", address]
        start.append(subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    where = ",".join(process.stdout.readline().strip() for process in start)
    for process in start:
        process.stdin.write(where + "\n")
        process.stdin.flush()
    said = [json.loads(line) for line in start[0].stdout.read().splitlines()]
    for process in start:
        process.wait(timeout=60)
    return {line["bytes"]: (line["us"], line["algorithm"]) for line in said if line and "bytes" in line}


def allreduces(flags):
    print("| ranks | bytes | auto takes | us | ring, us | direct, us | auto over best |\n" + "| --- " * 7 + "|")
    for title, workers, on_hosts in [("2 local", 2, 0), ("4 local", 4, 0), ("2 hosts of 1", 2, 2), ("2 hosts of 2", 4, 2)]:
        if flags.only not in title:
            continue
        with hosts(on_hosts, flags.mbit) if on_hosts else contextlib.nullcontext() as names:
            runs = [{a: ranks(flags.strath, workers, names, flags.sizes, a) for a in ("auto", "ring", "direct")} for _ in range(flags.repeat)]
        for size in runs[0]["auto"]:
            median = lambda a: statistics.median(run[a][size][0] for run in runs)
            taken = "/".join(sorted({run["auto"][size][1] for run in runs}))
            over = statistics.median(run["auto"][size][0] / min(run[a][size][0] for a in run) for run in runs)
            print(f"| {title} | {size} | {taken} | {median('auto'):.1f} | {median('ring'):.1f} | {median('direct'):.1f} | {over:.2f} |", flush=True)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that namespaces go
    p = argparse.ArgumentParser()
    p.add_argument("strath", nargs="?", default="target/release/strath")
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--only", default="")
    p.add_argument("--mbit", type=int, default=1000)
    p.add_argument("--allreduce", action="store_true")
    p.add_argument("--sizes", default="1KiB,16KiB,64KiB,256KiB,1MiB,4MiB,16MiB")
    flags = p.parse_args()
    allreduces(flags) if flags.allreduce else steps(flags)


if __name__ == "__main__":
    main()
