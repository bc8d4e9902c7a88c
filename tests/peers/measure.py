"""`strath measure` beside PyTorch on the same checkpoints: an MLP and a convnet on Fashion-MNIST, batch norm in evaluation mode.

    python tests/peers/measure.py STRATH [FASHION_MNIST_FOLDER] [--limit 512]

Needs a Python with torch and safetensors. PyTorch computes in float64 with its own autograd, by the definitions that `strath measure`
documents. Prints both numbers and fails where they are further apart than: sharpness 1e-3 of itself, each of the five largest eigenvalues 1 %, the
trace two standard errors, each loss of the landscape 1e-3 of itself. Last the time of a product with the Hessian over that of a gradient, and
of a landscape over that of as many evaluations.
"""
import argparse
import csv
import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1] / "reference"))
import models
from reference import dual

MODELS = {"mlp": dict(hidden=[64, 32]), "convnet": dict(widths=[8, 16, 16])}
M, RHO, STEPS, EXTENT, GRID, TRACE = 64, 0.05, 4, 0.5, 9, 60


def images(folder, split, limit):
    with gzip.open(Path(folder) / f"{split}-images-idx3-ubyte.gz") as f:
        x = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)[:limit]
    with gzip.open(Path(folder) / f"{split}-labels-idx1-ubyte.gz") as f:
        y = np.frombuffer(f.read(), np.uint8, offset=8)[:limit]
    return torch.from_numpy((x / 255.0 - 0.2860) / 0.3530).double(), torch.from_numpy(y.astype(np.int64))


class Network:
    """A checkpoint as a function of its parameters."""

    def __init__(self, kind, checkpoint, x, y):
        self.module = models.build(kind, 1, 28, 10, **MODELS[kind]).double().eval()
        tensors = {k: v.double() for k, v in load_file(checkpoint).items()}
        self.module.load_state_dict(tensors, strict=False)
        self.names = sorted(name for name, _ in self.module.named_parameters())
        own = dict(self.module.named_parameters())
        self.w = [own[name].detach().clone() for name in self.names]
        self.x, self.y = x, y

    def loss(self, w, part=slice(None)):
        logits = torch.func.functional_call(self.module, dict(zip(self.names, w)), (self.x[part],))
        return F.cross_entropy(logits, self.y[part])

    def gradient(self, w, part=slice(None)):
        w = [t.detach().requires_grad_() for t in w]
        loss = self.loss(w, part)
        return loss.item(), torch.autograd.grad(loss, w)

    def hessian_times(self, v):
        w = [t.detach().requires_grad_() for t in self.w]
        g = torch.autograd.grad(self.loss(w), w, create_graph=True)
        return torch.autograd.grad(sum((a * b).sum() for a, b in zip(g, v)), w)


def sharpness(net, p, steps):
    """Means over lanes, weighted by size: at w, after one step, and the best of all."""
    total, n = np.zeros(3), len(net.y)
    for start in range(0, n, M):
        part = slice(start, min(start + M, n))
        clean, g = net.gradient(net.w, part)
        epsilon = [RHO * d for d in dual(g, net.w, p, False, 0.0)]
        losses = []
        for _ in range(steps):
            at = [a + e for a, e in zip(net.w, epsilon)]
            loss, g = net.gradient(at, part)
            losses.append(loss)
            epsilon = [e + RHO / 2 * d for e, d in zip(epsilon, dual(g, net.w, p, False, 0.0))]
            flat = torch.cat([e.flatten() for e in epsilon])
            if p == float("inf"):
                epsilon = [e.clamp(-RHO, RHO) for e in epsilon]
            elif flat.norm() > RHO:
                epsilon = [e * (RHO / flat.norm()) for e in epsilon]
        total += np.array([clean, losses[0], max(losses)]) * (part.stop - part.start) / n
    return total


def top(net, k, steps=90):
    """The k largest eigenvalues by plain Lanczos, every vector orthogonalised against all before it."""
    shapes = [t.shape for t in net.w]
    split = lambda v: [a.view(s) for a, s in zip(v.split([s.numel() for s in shapes]), shapes)]
    basis, t = [torch.nn.functional.normalize(torch.randn(sum(s.numel() for s in shapes), dtype=torch.float64), dim=0)], []
    for j in range(steps):
        w = torch.cat([a.flatten() for a in net.hessian_times(split(basis[j]))])
        q = torch.stack(basis)
        row = q @ w
        w = w - row @ q
        w = w - (q @ w) @ q
        t.append(row)
        basis.append(w / w.norm())
    full = torch.zeros(steps, steps, dtype=torch.float64)
    for j, row in enumerate(t):
        full[: j + 1, j] = full[j, : j + 1] = row
    return torch.linalg.eigvalsh(full).flip(0)[:k].tolist()


def trace(net, samples):
    forms = []
    for _ in range(samples):
        z = [torch.randint(0, 2, t.shape).double() * 2 - 1 for t in net.w]
        forms.append(sum((a * b).sum() for a, b in zip(z, net.hessian_times(z))).item())
    return np.mean(forms), np.std(forms, ddof=1) / np.sqrt(samples)


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("strath")
    flags.add_argument("data", nargs="?", default="/usr/share/datasets/fashion-mnist")
    flags.add_argument("--limit", type=int, default=512)
    flags = flags.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(2)
    x, y = images(flags.data, "train", flags.limit)
    failed = []

    def compare(what, ours, theirs, allowed):
        apart = abs(ours - theirs)
        print(f"  {what:34} {ours:14.6f} {theirs:14.6f}   apart {apart:.1e}, allowed {allowed:.1e}{'' if apart <= allowed else '   TOO FAR'}")
        if apart > allowed:
            failed.append(what)

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for kind, options in MODELS.items():
            out = folder / kind
            keys = {"data.kind": "fashion-mnist", "data.path": str(flags.data), "data.train_limit": 6000, "model.kind": kind, "run.steps": 200,
                    "batch.size": 128, "sam.m": 64, "sam.rho": 0.05, "optimizer.lr": 0.05, "optimizer.momentum": 0.9,
                    **{f"model.{k}": v for k, v in options.items()}}
            config = folder / f"{kind}.toml"
            tables = {}
            for key, value in keys.items():
                table, name = key.split(".")
                tables.setdefault(table, []).append(f"{name} = {json.dumps(value)}")
            config.write_text("\n".join(f"[{t}]\n" + "\n".join(rows) for t, rows in tables.items()) + "\n[cluster]\nthreads = 1\n")
            subprocess.run([flags.strath, "train", config, "--out", out], check=True, capture_output=True)
            checkpoint = out / "final.safetensors"
            net = Network(kind, checkpoint, x, y)

            def measure(what, *more, workers=2):
                command = [flags.strath, "measure", what, checkpoint, "--config", config, "--limit", flags.limit, "--workers", workers, "--json", *more]
                began = time.time()
                done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(f"{command} ended with {done.returncode}: {done.stderr.strip()[-800:]}")
                return json.loads(done.stdout), time.time() - began

            print(f"{kind}, {flags.limit} examples" + " " * 18 + "Strath        PyTorch")
            for p, steps in ((2.0, 1), (2.0, STEPS), (float("inf"), STEPS)):
                rho = RHO
                ours, _ = measure("sharpness", "--m", M, "--rho", rho, "--norm", p, "--ascent-steps", steps)
                if ours != measure("sharpness", "--m", M, "--rho", rho, "--norm", p, "--ascent-steps", steps, workers=3)[0]:
                    failed.append(f"{kind}: 2 and 3 workers differ")
                clean, once, best = sharpness(net, p, steps)
                compare(f"loss, p {p}, {steps} steps", ours["clean_loss"], clean, 1e-3 * clean)
                compare("sharpness of one step", ours["one_step_sharpness"], once - clean, 1e-3 * abs(once - clean))
                compare("sharpness", ours["sharpness"], best - clean, 1e-3 * abs(best - clean))
            ours, seconds = measure("spectrum", "--top", 5, "--trace-samples", TRACE)
            for at, (mine, theirs) in enumerate(zip(ours["eigenvalues"], top(net, 5))):
                compare(f"eigenvalue {at + 1}", mine, theirs, 0.01 * abs(theirs))
            theirs, stderr = trace(net, TRACE)
            compare("trace", ours["trace"], theirs, 2 * np.hypot(stderr, ours["trace_stderr"]))
            print(f"  {ours['products']} products in {seconds:.1f} s, residuals at most {max(r / v for r, v in zip(ours['residuals'], ours['eigenvalues'])):.1e}")
            drawn = folder / f"{kind}-landscape"
            measure("landscape", "--dims", 2, "--grid", GRID, "--extent", EXTENT, "--out", drawn)
            axes = load_file(drawn / "directions.safetensors")
            worst = 0.0
            with torch.no_grad(), open(drawn / "landscape.csv") as file:
                for row in csv.DictReader(file):
                    at = [w + float(row["alpha"]) * axes[f"alpha/{n}"].double() + float(row["beta"]) * axes[f"beta/{n}"].double()
                          for n, w in zip(net.names, net.w)]
                    theirs = net.loss(at).item()
                    worst = max(worst, abs(float(row["loss"]) - theirs) / theirs)
            compare(f"landscape, worst of {GRID * GRID}, relative", worst, 0.0, 1e-3)
    if failed:
        raise SystemExit(f"too far apart: {', '.join(failed)}")


if __name__ == "__main__":
    main()
