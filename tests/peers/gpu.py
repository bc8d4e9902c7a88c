"""All that is measured on a GPU, in one command and within eight minutes: python tests/peers/gpu.py STRATH [--out FILE] [--seconds 450]

STRATH is built with --features cuda; the Python that runs this has PyTorch for the same GPU. In this order, so that what matters most is there should the time run out:

1. every reference case with one worker on cuda:0, within its tolerance (tests/reference);
2. the same weights_sha256 for 1, 2 and 4 workers that share cuda:0, over TCP, and for 1, 2 and 4 streams;
3. images/s of a SAM step beside PyTorch's on the same GPU, in bf16 on both sides (PyTorch's by autocast) and in TF32, batch 128, m 128 and 32, in turns: Strath, and PyTorch channels-last eager;
4. the same compiled by PyTorch; the better of its two counts;
5. images/s in bf16 with lanes of 8 and of 32 examples on 1, 2 and 4 streams;
6. each kernel's share of the peak (strath bench kernels), in bf16;
7. the rows of 3 again, so that medians are of more turns, and those in f32, as far as the time reaches.

What fails is written down, and the next is measured. Prints a line a result, and at the end the ratios as a Markdown table; with --out writes everything as JSON. Data is drawn, 32x32x3 and 10
classes. Where this Python's packages bring NVIDIA's libraries, Strath is shown them.
"""
import argparse
import concurrent.futures
import json
import os
import site
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
CASES = HERE.parent / "reference" / "cases"
sys.path.insert(0, str(HERE.parent / "reference"))
import models
import reference
import train

DEVICE = "cuda:0"
NETWORKS = {
    "wide-resnet 28-10": ("wide-resnet", {"depth": 28, "widen": 10}),
    "ResNet-56": ("resnet", {"depth": 56}),
    "ViT 384x12": ("vit", {"patch": 4, "dim": 384, "depth": 12, "heads": 6}),
}
BATCH, EXAMPLES, RHO = 128, 2048, 0.05


def conforms(strath, case):
    """What is wrong with a case on the GPU; nothing where it is within its tolerance."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        command = [strath, "train", case / "case.toml", "--workers", "1", "--no-report", "--out", out, "--set", f'cluster.device="{DEVICE}"']
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        if done.returncode:
            return [f"ended with {done.returncode}: {done.stderr.strip()[-300:]}"]
        return [str(finding) for finding in reference.compare(case, out)]


def draw(folder):
    """Made-up images and labels as a data set of safetensors."""
    generator = np.random.default_rng(0)
    images = generator.standard_normal((EXAMPLES, 3, 32, 32), dtype=np.float32)
    labels = generator.integers(0, 10, EXAMPLES)
    path = Path(folder) / "data.safetensors"
    save_file({"train.images": images, "train.labels": labels, "test.images": images[:64].copy(), "test.labels": labels[:64].copy()}, path)
    return path


def config(data, network, m, workers, steps, compute="f32"):
    kind, options = network
    sets = {"data.kind": "safetensors", "data.path": str(data), "data.classes": 10, "model.kind": kind, "batch.size": BATCH, "sam.m": m, "sam.rho": RHO, "run.steps": steps,
            "optimizer.lr": 1e-3, "optimizer.momentum": 0.9, "optimizer.weight_decay": 5e-4, "cluster.workers": workers, "cluster.device": DEVICE, "cluster.transport": "tcp", "model.compute": compute,
            **{f"model.{key}": value for key, value in options.items()}}
    return sets, "[run]\nname = \"gpu\"\n[data]\nkind = \"digits\"\n[model]\nkind = \"mlp\"\nhidden = [1]\n"


def ours(strath, data, network, m, steps, compute, **more):
    sets, base = config(data, network, m, 1, steps + 5, compute)
    lines = train.steps(strath, {**sets, **more}, 5, base, timeout=60)
    return BATCH / statistics.median(line["step_s"] for line in lines)


def hashes(strath, data):
    """weights_sha256 of a run by each number of workers on one GPU, and of streams that the lanes of one take turns on."""
    found = {}
    for workers, streams in ((1, 1), (1, 2), (1, 4), (2, 2), (4, 2)):
        sets, base = config(data, ("resnet", {"depth": 20}), 16, workers, 12)
        sets["cluster.streams"] = streams
        with tempfile.TemporaryDirectory() as folder:
            file, out = Path(folder) / "run.toml", Path(folder) / "out"
            file.write_text(base)
            arguments = [f"--set={key}={json.dumps(value)}" for key, value in sets.items()]
            subprocess.run([strath, "train", file, "--no-report", "--out", out, *arguments], check=True, capture_output=True, text=True, timeout=60)
            found[f"{workers} workers, {streams} streams"] = json.loads((out / "summary.json").read_text())["weights_sha256"]
    return found


def theirs(network, m, steps, compute, compiled):
    """PyTorch's images/s: every lane of m examples with an epsilon of its own, channels-last."""
    kind, options = network
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = compute == "tf32"
    torch.backends.cudnn.benchmark = True
    net = models.build(kind, 3, 32, 10, **options).to(DEVICE, memory_format=torch.channels_last)
    weights = list(net.parameters())
    # Of what another size compiled nothing is left over.
    torch.compiler.reset()
    forward = torch.compile(net, dynamic=False) if compiled else net
    optimizer = torch.optim.SGD(weights, lr=1e-3, momentum=0.9, weight_decay=5e-4, foreach=True)
    images = torch.randn(EXAMPLES, 3, 32, 32, device=DEVICE).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (EXAMPLES,), device=DEVICE)

    def loss(x, y):
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=compute == "bf16"):
            return F.cross_entropy(forward(x), y)

    def step(number):
        descent = [torch.zeros_like(w) for w in weights]
        for lane in range(BATCH // m):
            first = (number * BATCH + lane * m) % (EXAMPLES - m + 1)
            x, y = images[first:first + m], labels[first:first + m]
            optimizer.zero_grad(set_to_none=True)
            loss(x, y).backward()
            with torch.no_grad():
                gradient = [w.grad for w in weights]
                norm = torch.stack(torch._foreach_norm(gradient)).norm()
                kept = [w.clone() for w in weights]
                torch._foreach_add_(weights, torch._foreach_mul(gradient, RHO / norm))
            optimizer.zero_grad(set_to_none=True)
            (loss(x, y) * (m / BATCH)).backward()
            with torch.no_grad():
                torch._foreach_add_(descent, [w.grad for w in weights])
                torch._foreach_copy_(weights, kept)
        for w, g in zip(weights, descent):
            w.grad = g
        optimizer.step()

    for number in range(5):
        step(number)
    torch.cuda.synchronize()
    seconds = []
    for number in range(steps):
        began = time.perf_counter()
        step(number)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return BATCH / statistics.median(seconds)


def libraries():
    """Shows Strath the libraries that came with this Python's packages, as its own search knows the system's alone."""
    folders = [str(folder) for root in site.getsitepackages() for folder in sorted(Path(root).glob("nvidia/*/lib"))]
    path = os.environ.get("LD_LIBRARY_PATH")
    os.environ["LD_LIBRARY_PATH"] = ":".join([*([path] if path else []), *folders])


def kernels(strath, data, network):
    """Microseconds of each product of a network's layers, and its share of the peak."""
    sets, base = config(data, network, BATCH, 1, 1, "bf16")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.toml"
        file.write_text(base)
        arguments = [f"--set={key}={json.dumps(value)}" for key, value in sets.items()]
        done = subprocess.run([strath, "bench", "kernels", file, "--batch", str(BATCH), "--json", *arguments], check=True, capture_output=True, text=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


class Measurements:
    """What was found so far: a line on the screen each, and a file."""

    def __init__(self, flags):
        self.began, self.flags = time.monotonic(), flags
        self.found = {"device": torch.cuda.get_device_name(0), "torch": torch.__version__, "cpu": os.cpu_count()}

    def left(self):
        return self.flags.seconds - (time.monotonic() - self.began)

    def tell(self, key, value):
        self.found[key] = value
        print(f"[{time.monotonic() - self.began:5.0f} s] {key}: {json.dumps(value)}", flush=True)
        if self.flags.out:
            Path(self.flags.out).write_text(json.dumps(self.found, indent=1))

    def measure(self, key, least_s, what):
        """What `what` returns; none where less time is left than it may take, or it fails, which is told."""
        if self.left() < least_s:
            return None if key in self.found else self.tell(key, "not measured: the time is over")
        try:
            return what()
        except (Exception, SystemExit) as error:
            said = getattr(error, "stderr", None) or f"{type(error).__name__}: {error}"
            return self.tell(key, {"failed": str(said)[-300:]})
        finally:
            torch.cuda.empty_cache()


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("strath")
    flags.add_argument("--out")
    flags.add_argument("--seconds", type=float, default=450)
    flags.add_argument("--steps", type=int, default=10)
    flags = flags.parse_args()
    libraries()
    run = Measurements(flags)

    cases = sorted(case for case in CASES.iterdir() if (case / "case.toml").exists())
    conform = lambda case: run.measure(case.name, 20, lambda: (conforms(flags.strath, case),)) or (["was not measured"],)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        findings = {case.name: found for case, (found,) in zip(cases, pool.map(conform, cases))}
    run.tell("cases", {"of": len(cases), "findings": {name: what for name, what in findings.items() if what}})
    rows = {}  # network, m and compute: images/s of Strath, of PyTorch eager, compiled
    with tempfile.TemporaryDirectory() as folder:
        data = draw(folder)
        same = run.measure("hashes", 60, lambda: hashes(flags.strath, data))
        if same:
            run.tell("hashes", {"equal": len(set(same.values())) == 1, **same})

        def turn(compute, m):
            for name, network in NETWORKS.items():
                key = f"{name}, m {m}, {compute}"
                # What one more turn has no time for does not take the place of the last.
                pair = run.measure(f"{key}, once more" if key in rows else key, 40, lambda: (ours(flags.strath, data, network, m, flags.steps, compute), theirs(network, m, flags.steps, compute, False)))
                if pair:
                    row = rows.setdefault(key, {"strath": [], "eager": [], "compiled": []})
                    row["strath"].append(pair[0])
                    row["eager"].append(pair[1])
                    run.tell(key, row)

        def compiled(compute, m):
            for name, network in NETWORKS.items():
                key = f"{name}, m {m}, {compute}"
                found = run.measure(f"{key}, compiled", 90, lambda: theirs(network, m, flags.steps, compute, True)) if key in rows else None
                if found:
                    rows[key]["compiled"].append(found)
                    run.tell(key, rows[key])

        def streams(m):
            """images/s by the number of streams: what to set cluster.streams to, and what its default is to be."""
            for name, network in NETWORKS.items():
                key = f"{name}, m {m}, bf16, streams"
                found = run.measure(key, 45, lambda: {k: ours(flags.strath, data, network, m, flags.steps, "bf16", **{"cluster.streams": k}) for k in (1, 2, 4)})
                if found:
                    run.tell(key, found)

        kinds = [("bf16", 128), ("tf32", 128), ("bf16", 32), ("tf32", 32)]
        for kind in kinds:
            turn(*kind)
        for kind in kinds[:2]:
            compiled(*kind)
        streams(8)
        for name, network in NETWORKS.items():
            found = run.measure(f"{name}, kernels", 40, lambda: kernels(flags.strath, data, network))
            if found:
                run.tell(f"{name}, kernels", found)
        for kind in kinds[2:]:
            compiled(*kind)
        streams(32)
        for kind in [*kinds, ("f32", 128), ("f32", 32)]:
            turn(*kind)
    print(f"\n{run.found['device']}, PyTorch {run.found['torch']}, images/s\n\n| | Strath | PyTorch | compiled | ratio |\n| --- | --- | --- | --- | --- |")
    for key, row in rows.items():
        strath, eager, best = statistics.median(row["strath"]), statistics.median(row["eager"]), max(row["compiled"], default=0)
        print(f"| {key} | {strath:.0f} | {eager:.0f} | {f'{best:.0f}' if best else '-'} | {strath / max(eager, best):.2f} |")
    sys.exit(1 if any(findings.values()) or not same or len(set(same.values())) > 1 else 0)


if __name__ == "__main__":
    main()
