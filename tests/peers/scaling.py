"""How a step's speed changes with m, with workers and with shared lanes: scaling.py STRATH [--repeat 5] [--steps 6] [--only ROWS]

Every number is a ratio of two runs, one right after the other, medians of `repeat` turns; nothing else should run on the
machine, which needs a core for each of two workers. ResNet-20 on Fashion-MNIST, one thread a worker, exact sums.

machine what two cores can do: the throughput of two runs of 1 worker each, at the same time, over that of one alone. Where cores
        share a cache, a clock or a physical core this is below 2, and bounds the two rows that follow m8.
m8      throughput at m 8 over m 64, 2 workers
lanes   throughput of 2 workers over that of 1, m 64
batch   the same with one lane a batch in micro-batches of 64: the lane's ascent is reduced as well, two all-reduces a step
shared  step time of 3 workers whose lanes of 12 in micro-batches of 4 are shared (batch 96: each holds 8 micro-batches, some of
        a neighbour's lane) over that of lanes of 8, which are not. Simulated, as if every worker had a core of its own: the parts
        of a step are measured with 1 worker, what two ranks exchange is measured with 2, and the ranks' order of work
        (crates/strath-node/src/step.rs) is played out with them. Of 2 workers, which the machine can run, the same play predicts
        the step with a shared lane (batch 96, m 32) from one without (m 16): the last line says how far it is from the measured.
"""
import argparse
import array
import gzip
import json
import statistics
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import train

DATA = Path("/usr/share/datasets/fashion-mnist")
TRAIN, TEST = 2048, 128  # examples that are kept: what a run does beside its steps takes no time
WARM_UP = 3  # steps of every run that do not count
PASSES = ("data", "ascent", "descent")  # in proportion to micro-batches


def data(path):
    """A part of Fashion-MNIST as a safetensors file."""
    tensors = {}
    for split, name, count in (("train", "train", TRAIN), ("test", "t10k", TEST)):
        pixels = gzip.open(DATA / f"{name}-images-idx3-ubyte.gz").read()[16 : 16 + 784 * count]
        labels = gzip.open(DATA / f"{name}-labels-idx1-ubyte.gz").read()[8 : 8 + count]
        tensors[f"{split}.images"] = ("F32", [count, 1, 28, 28], array.array("f", [(p / 255 - 0.2860) / 0.3530 for p in pixels]).tobytes())
        tensors[f"{split}.labels"] = ("I64", [count], array.array("q", list(labels)).tobytes())
    header, at = {}, 0
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(values)]}
        at += len(values)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(values for _, _, values in tensors.values()))


def phases(strath, steps, workers, batch, m, micro=None, of=statistics.median):
    """Medians over steps (or another number `of` them) of the seconds of a step and its phases on rank 0."""
    sets = {"data.kind": "safetensors", "data.path": str(SCRATCH / "data.safetensors"), "data.classes": 10, "model.kind": "resnet",
            "model.depth": 20, "batch.size": batch, "sam.m": m, "sam.rho": 0.05, "optimizer.lr": 0.1, "optimizer.momentum": 0.9,
            "optimizer.weight_decay": 5e-4, "cluster.workers": workers, "cluster.threads": 1, "run.steps": WARM_UP + steps}
    if micro:
        sets["batch.micro"] = micro
    counted = train.steps(strath, sets, WARM_UP)
    return {key[:-2]: of([line[key] for line in counted]) for key in counted[0] if key.endswith("_s") and key != "images_per_s"}


def speed(strath, steps, **what):
    return what["batch"] / phases(strath, steps, **what)["step"]


def play(shares, lane, cost):
    """Seconds of a step of ranks that hold `shares` micro-batches each, lanes of `lane`: each computes its parts of shared lanes'
    ascent first, then its own lanes, then waits for each shared lane and descends on it."""
    bounds = [sum(shares[:rank]) for rank in range(len(shares) + 1)]
    parts, clock, sent = [], [0.0] * len(shares), {}
    for rank in range(len(shares)):
        held = range(bounds[rank], bounds[rank + 1])
        counts = {v: sum(1 for k in held if k // lane == v) for v in sorted({k // lane for k in held})}
        parts.append(counts)
    holders = lambda v: sum(1 for counts in parts if v in counts)
    for rank, counts in enumerate(parts):
        for v, count in counts.items():
            if holders(v) > 1:
                clock[rank] += count * (cost["data"] + cost["ascent"])
                sent[v] = max(sent.get(v, 0.0), clock[rank])
    for rank, counts in enumerate(parts):
        for v, count in counts.items():
            if holders(v) == 1:
                clock[rank] += count * (cost["data"] + cost["ascent"] + cost["descent"]) + cost["epsilon"]
        for v, count in counts.items():
            if holders(v) > 1:
                clock[rank] = max(clock[rank], sent[v] + cost["exchange"]) + cost["epsilon"] + count * cost["descent"]
    return max(clock) + cost["reduce"] + cost["update"]


def costs(alone, pair, lanes, micro_batches):
    """Seconds of one micro-batch's passes and of one lane's epsilon, of a rank that holds so many alone; of the exchanges of a pair."""
    cost = {phase: alone[phase] / micro_batches for phase in PASSES}
    return cost | {"epsilon": alone["epsilon"] / lanes, "update": alone["update"], "reduce": pair["reduce"], "exchange": pair["exchange"]}


def shared(strath, steps):
    """Ratio of simulated step times, shared over not; prediction over measurement of 2 workers that share a lane. Of each phase
    the least of a run's steps counts: a disturbance is no part of the order of work."""
    run = lambda **what: phases(strath, steps, micro=4, of=min, **what)
    twelve, eight = run(workers=1, batch=96, m=12), run(workers=1, batch=96, m=8)
    # Two ranks that hold half a lane each wait for each other, so what they wait is at least what the exchange takes.
    pair = run(workers=2, batch=32, m=32)
    apart, middle = run(workers=2, batch=96, m=16), run(workers=2, batch=96, m=32)
    ours = play([8, 8, 8], 3, costs(twelve, pair, 8, 24))
    unshared = play([8, 8, 8], 2, costs(eight, pair, 12, 24))
    predicted = play([12, 12], 8, costs(apart, pair, 3, 12))
    return ours / unshared, predicted / middle["step"]


def machine(strath, steps):
    """Throughput of two runs at the same time over that of one."""
    what = dict(workers=1, batch=64, m=64)
    alone = speed(strath, steps, **what)
    with ThreadPoolExecutor(2) as pool:
        # The second starts and ends beside the first: both have a few steps more than count.
        both = list(pool.map(lambda _: speed(strath, 2 * steps, **what), range(2)))
    return sum(both) / alone


ROWS = {"machine": None, "m8": 0.85, "lanes": 1.9, "batch": 1.8, "shared": 1.1}


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("strath")
    flags.add_argument("--repeat", type=int, default=5)
    flags.add_argument("--steps", type=int, default=6)
    flags.add_argument("--only", default="", help="rows, separated by commas")
    flags = flags.parse_args()
    rows = [row for row in ROWS if not flags.only or row in flags.only.split(",")]
    found = {row: [] for row in [*rows, "predicted"]}
    data(SCRATCH / "data.safetensors")
    measure = lambda **what: speed(flags.strath, flags.steps, **what)
    for turn in range(flags.repeat):
        if "machine" in rows:
            found["machine"].append(machine(flags.strath, flags.steps))
        if "m8" in rows:
            found["m8"].append(measure(workers=2, batch=128, m=8) / measure(workers=2, batch=128, m=64))
        if "lanes" in rows:
            found["lanes"].append(measure(workers=2, batch=128, m=64) / measure(workers=1, batch=128, m=64))
        if "batch" in rows:
            whole = dict(batch=128, m=128, micro=64)
            found["batch"].append(measure(workers=2, **whole) / measure(workers=1, **whole))
        if "shared" in rows:
            ratio, predicted = shared(flags.strath, flags.steps)
            found["shared"].append(ratio)
            found["predicted"].append(predicted)
        print(f"turn {turn + 1} of {flags.repeat}:", {row: values[-1] for row, values in found.items() if values}, file=sys.stderr)
    print("| what | ratio | of turns | wanted |\n| --- | --- | --- | --- |")
    for row in rows:
        bound = {"machine": "-", "shared": f"at most {ROWS[row]}"}.get(row, f"at least {ROWS[row]}")
        turns = ", ".join(f"{value:.2f}" for value in found[row])
        print(f"| {row} | {statistics.median(found[row]):.2f} | {turns} | {bound} |")
    if found["predicted"]:
        print(f"Predicted over measured, 2 workers that share a lane: {statistics.median(found['predicted']):.3f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        SCRATCH = Path(scratch)
        main()
