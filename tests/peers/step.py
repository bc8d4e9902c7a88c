"""Training steps side by side with PyTorch DDP: step.py STRATH PYTHON [--repeat 3] [--only NAME]

Each case runs Strath and PyTorch (both memory layouts; the better counts) in turns, `repeat` times, and prints the median of the
ratios of images/s, ours over theirs, as a Markdown table. PYTHON has torch; nothing else should run on the machine.
"""
import argparse
import json
import statistics
import subprocess
from pathlib import Path

import train

HERE = Path(__file__).resolve().parent
RESNET20, RESNET56 = ("resnet", {"depth": 20}), ("resnet", {"depth": 56})
CASES = {  # name: network, workers, threads, batch, m, rho, at least
    "ResNet-20 SAM, m 64, 2 workers": (RESNET20, 2, 1, 128, 64, 0.05, 1.8),
    "ResNet-20 SAM, m 16, 2 workers": (RESNET20, 2, 1, 128, 16, 0.05, 1.8),
    "ResNet-56 SAM, m 32, 2 workers": (RESNET56, 2, 1, 128, 32, 0.05, 1.8),
    "ResNet-20 SAM, m 64, 1 worker": (RESNET20, 1, 1, 64, 64, 0.05, 1.8),
    "ResNet-20 SAM, m 64, 1 worker, 2 threads": (RESNET20, 1, 2, 128, 64, 0.05, 1.6),
    "MLP 1024-1024 SAM, m 64, 2 workers": (("mlp", {"hidden": [1024, 1024]}), 2, 1, 128, 64, 0.05, 1.8),
    "ResNet-20 plain SGD, 2 workers": (RESNET20, 2, 1, 128, 64, 0.0, 1.8),
    "wide-resnet 16-2 SAM, m 64, 2 workers": (("wide-resnet", {"depth": 16, "widen": 2}), 2, 1, 128, 64, 0.05, 1.7),
    "ViT 192x6 SAM, m 64, 2 workers": (("vit", {"patch": 4, "dim": 192, "depth": 6, "heads": 3}), 2, 1, 128, 64, 0.05, 1.1),
}


def ours(strath, case, steps):
    (kind, options), workers, threads, batch, m, rho, _ = case
    sets = {"data.kind": "fashion-mnist", "data.path": "/usr/share/datasets/fashion-mnist", "model.kind": kind,
            "batch.size": batch, "sam.m": m, "sam.rho": rho, "run.steps": steps + 5, "optimizer.lr": 0.1,
            "optimizer.momentum": 0.9, "optimizer.weight_decay": 5e-4, "cluster.workers": workers, "cluster.threads": threads,
            **{f"model.{k}": v for k, v in options.items()}}
    config = "[run]\nname = \"peers\"\n[data]\nkind = \"fashion-mnist\"\npath = \"/\"\n[model]\nkind = \"mlp\"\nhidden = [1]\n"
    return batch / statistics.mean(line["step_s"] for line in train.steps(strath, sets, 5, config))


def theirs(python, case, steps, channels_last):
    (kind, options), workers, threads, batch, m, rho, _ = case
    arguments = dict(model=kind, options=json.dumps(options), workers=workers, threads=threads, batch=batch, m=m, rho=rho, steps=steps)
    command = [python, HERE / "torch_sam.py", *(f"--{k}={v}" for k, v in arguments.items()), *(["--channels-last"] if channels_last else [])]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main():
    p = argparse.ArgumentParser()
    p.add_argument("strath")
    p.add_argument("python")
    p.add_argument("--repeat", type=int, default=3)
    p.add_argument("--steps", type=int, default=10)
    p.add_argument("--only", default="")
    a = p.parse_args()
    print("| step | Strath, images/s | PyTorch, images/s | ratio | wanted |\n| --- | --- | --- | --- | --- |")
    for name, case in CASES.items():
        if a.only not in name:
            continue
        layouts = [False] if case[0][0] in ("mlp", "vit") else [True, False]
        rows = []
        for _ in range(a.repeat):
            best = max(theirs(a.python, case, a.steps, layout) for layout in layouts)
            rows.append((ours(a.strath, case, a.steps), best))
        ratio = statistics.median(x / y for x, y in rows)
        mine, peer = (statistics.median(column) for column in zip(*rows))
        print(f"| {name} | {mine:.0f} | {peer:.0f} | {ratio:.2f} | {case[-1]} |", flush=True)


if __name__ == "__main__":
    main()
