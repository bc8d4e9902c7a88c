"""What a user would run instead: PyTorch DDP over Gloo on the CPU, with SAM, each lane of m examples with an epsilon of its own.

    torch_sam.py --model resnet --options '{"depth": 20}' --workers 2 --batch 128 --m 64

Prints the images/s of its timed steps. The networks are those of tests/reference/models.py, so both sides compute the same.
Needs PyTorch (pip install torch) and Debian's package dataset-fashion-mnist.
"""
import argparse
import gzip
import json
import os
import sys
import time
import warnings
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "reference"))
import models

DATA = Path("/usr/share/datasets/fashion-mnist")


def examples(count):
    read = lambda name, skip: torch.frombuffer(bytearray(gzip.open(DATA / name).read()), dtype=torch.uint8)[skip:]
    images = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[:count].float()
    return (images / 255 - 0.2860) / 0.3530, read("train-labels-idx1-ubyte.gz", 8)[:count].long()


def backward(net, x, y, share):
    """Adds `share` times the gradient of the mean loss over x, y."""
    (F.cross_entropy(net(x), y) * share).backward()


def work(rank, a):
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(a.threads)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(a.port), GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", rank=rank, world_size=a.workers)
    layout = torch.channels_last if a.channels_last else torch.contiguous_format
    net = models.build(a.model, 1, 28, 10, **json.loads(a.options)).to(memory_format=layout)
    ddp = DistributedDataParallel(net, gradient_as_bucket_view=True)
    weights = list(net.parameters())
    optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=5e-4, foreach=True)
    images, labels = examples(60_000)
    share = a.batch // a.workers  # examples of this rank
    lanes = share // a.m
    for step in range(a.warmup + a.steps):
        if step == a.warmup:
            dist.barrier()
            began = time.perf_counter()
        first = (step * a.batch + rank * share) % (len(labels) - share)
        descent = [torch.zeros_like(w) for w in weights]
        for lane in range(lanes):
            x = images[first + lane * a.m : first + (lane + 1) * a.m].contiguous(memory_format=layout)
            y = labels[first + lane * a.m : first + (lane + 1) * a.m]
            last = lane == lanes - 1
            if a.rho > 0:
                optimizer.zero_grad(set_to_none=False)
                with ddp.no_sync():
                    backward(ddp, x, y, 1.0)
                with torch.no_grad():
                    gradient = [w.grad for w in weights]
                    norm = torch.stack(torch._foreach_norm(gradient)).norm()
                    kept = [w.clone() for w in weights]
                    torch._foreach_add_(weights, torch._foreach_mul(gradient, float(a.rho / norm)))
            optimizer.zero_grad(set_to_none=False)
            if last:
                if lanes > 1:  # What other lanes contributed is reduced together with this one's.
                    with torch.no_grad():
                        torch._foreach_copy_([w.grad for w in weights], descent)
                backward(ddp, x, y, 1 / lanes)
            else:
                with ddp.no_sync():
                    backward(ddp, x, y, 1 / lanes)
                torch._foreach_add_(descent, [w.grad for w in weights])
            if a.rho > 0:
                with torch.no_grad():
                    torch._foreach_copy_(weights, kept)
        optimizer.step()
    dist.barrier()
    if rank == 0:
        print(a.steps * a.batch / (time.perf_counter() - began), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--model", default="resnet")
    p.add_argument("--options", default="{}", help="options of the network, JSON")
    for name, default in dict(workers=2, threads=1, batch=128, m=64, steps=10, warmup=3, port=29650).items():
        p.add_argument(f"--{name}", type=int, default=default)
    p.add_argument("--rho", type=float, default=0.05)
    p.add_argument("--channels-last", action="store_true")
    a = p.parse_args()
    mp.spawn(work, (a,), nprocs=a.workers)
