"""Strath's convolutions beside oneDNN's through PyTorch: the 3x3 layers of ResNet-20 on one thread, in turns.

    cargo build --release -p strath-kernels --example convolution
    python tests/peers/convolution.py [--strath target/release/examples/convolution] [--method auto] [--isa avx2]
                                      [--batches 16,64] [--rounds 9] [--seconds 0.004]

PYTHON has torch; nothing else should run on the machine. Each round measures every product once by Strath and once by PyTorch
in both memory layouts, each the median of the calls in a burst of `seconds` after one call that does not count. A ratio is
PyTorch's time in its better layout over Strath's, the median over rounds: more than 1, Strath is the faster. Packing of
weights and transforms count, as PyTorch's reorders do; its outputs come from an allocator told to keep large blocks, so that
no page faults count (they would make its large outputs up to three times as slow). "All together" adds up a step's convolutions: each product as often as
the network has it (the stem's input needs no gradient). The peak is that of fused multiply-adds, measured in the same turns;
per cent of it count the multiplications of the plain sum, so Winograd's may be above 100.
"""
import argparse
import os
import statistics
import subprocess
import sys
import time

import torch

# glibc reads these when a program starts.
KEEP_BLOCKS = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_TOP_PAD_": str(2**26)}
PRODUCTS = ("forward", "backward-data", "backward-weight")
LAYERS = [  # inputs, outputs, side, stride, times in the network
    (1, 16, 28, 1, 1),
    (16, 16, 28, 1, 6),
    (16, 32, 28, 2, 1),
    (32, 32, 14, 1, 5),
    (32, 64, 14, 2, 1),
    (64, 64, 7, 1, 5),
]


class Ours:
    """The example, which measures what it is asked for."""

    def __init__(self, program, isa, method):
        command = [program, *([isa] if isa else []), "serve"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.method = method

    def measure(self, product, layer, batch, seconds):
        inputs, outputs, side, stride, _ = layer
        self.process.stdin.write(f"{self.method} {product} {inputs} {outputs} {side} 3 {stride} {batch} {seconds}\n")
        answer = self.process.stdout.readline().split()
        if len(answer) != 2:
            sys.exit(f"{self.process.args[0]} ended with {self.process.wait(10)}, expected seconds and a peak")
        return float(answer[0]), float(answer[1])


def theirs(layer, batch, layout):
    """The three products as functions without arguments."""
    inputs, outputs, side, stride, _ = layer
    x = torch.rand(batch, inputs, side, side).contiguous(memory_format=layout)
    w = torch.rand(outputs, inputs, 3, 3).contiguous(memory_format=layout)
    dy = torch.rand(batch, outputs, side // stride, side // stride).contiguous(memory_format=layout)

    def backward(mask):
        sizes = [stride, stride], [1, 1], [1, 1], False, [0, 0], 1
        return lambda: torch.ops.aten.convolution_backward(dy, x, w, None, *sizes, mask)

    forward = lambda: torch.nn.functional.conv2d(x, w, stride=stride, padding=1)
    return dict(zip(PRODUCTS, (forward, backward([True, False, False]), backward([False, True, False]))))


def burst(call, seconds):
    call()
    times, start = [], time.perf_counter()
    while not times or time.perf_counter() - start < seconds:
        at = time.perf_counter()
        call()
        times.append(time.perf_counter() - at)
    return statistics.median(times)


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("--strath", default="target/release/examples/convolution")
    flags.add_argument("--method", default="auto", choices=["auto", "winograd", "direct"])
    flags.add_argument("--isa", default="")
    flags.add_argument("--batches", default="16,64")
    flags.add_argument("--rounds", type=int, default=9)
    flags.add_argument("--seconds", type=float, default=0.004)
    flags = flags.parse_args()
    torch.set_num_threads(1)
    ours = Ours(flags.strath, flags.isa, flags.method)
    layouts = {"NCHW": torch.contiguous_format, "channels last": torch.channels_last}
    print(f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}; Strath {flags.method} {flags.isa}")
    with torch.no_grad():
        for batch in map(int, flags.batches.split(",")):
            peers = {layer: {name: theirs(layer, batch, layout) for name, layout in layouts.items()} for layer in LAYERS}
            cases = [(layer, product) for layer in LAYERS for product in PRODUCTS]
            cases.remove((LAYERS[0], "backward-data"))
            found = {case: [] for case in cases}
            for _ in range(flags.rounds):
                for layer, product in cases:
                    mine, peak = ours.measure(product, layer, batch, flags.seconds)
                    peer = {name: burst(peers[layer][name][product], flags.seconds) for name in layouts}
                    found[layer, product].append((mine, peak, peer))
            report(batch, found)


def report(batch, found):
    print(f"\n| batch {batch} | Strath, us | of the peak, % | NCHW, us | channels last, us | ratio |\n" + "| --- " * 6 + "|")
    totals = [[0.0, 0.0] for _ in next(iter(found.values()))]
    for (layer, product), rounds in found.items():
        inputs, outputs, side, stride, times = layer
        flops = 2 * batch * (side // stride) ** 2 * inputs * outputs * 9
        ratios = []
        for total, (mine, _, peer) in zip(totals, rounds):
            best = min(peer.values())
            ratios.append(best / mine)
            total[0] += best * times
            total[1] += mine * times
        us = lambda values: f"{statistics.median(values) * 1e6:.0f}"
        peak = statistics.median(100e-9 * flops / mine / peak for mine, peak, _ in rounds)
        columns = [us(peer[name] for _, _, peer in rounds) for name in rounds[0][2]]
        name = f"{inputs} -> {outputs}, {side}x{side}, stride {stride}, {product}"
        ratio = statistics.median(ratios)
        print(f"| {name} | {us(mine for mine, _, _ in rounds)} | {peak:.0f} | {' | '.join(columns)} | {ratio:.2f} |")
    print(f"| all together | | | | | **{statistics.median(best / mine for best, mine in totals):.2f}** |", flush=True)


if __name__ == "__main__":
    if not KEEP_BLOCKS.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_BLOCKS})
    main()
