"""Strath's all-reduce beside Gloo's and Open MPI's: interleaved runs, medians of ratios.

    python tests/peers/allreduce.py [--strath target/release/strath] [--python PYTHON_WITH_TORCH] [--workers 2,4]
                                    [--sizes 1KiB,1MiB] [--repetitions 5] [--transport tcp|shm]

A number is the peer's time over Strath's f32 time, rank 0's median in the call after a barrier: more than 1, Strath is the
faster. `exact` and `exact x4` are Strath's own times with exact sums (one and four micro-batches a rank) over its f32 time.
A peer that is not installed is left out.
"""
import argparse, json, os, shutil, statistics, subprocess, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def size(text):
    return next((int(text.removesuffix(u)) * n for u, n in UNITS.items() if text.endswith(u)), None) or int(text)


def times(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return {line["bytes"]: line["us"] for line in lines}


def main():
    flags = argparse.ArgumentParser()
    flags.add_argument("--strath", default="target/release/strath")
    flags.add_argument("--python", default="python3")
    flags.add_argument("--workers", default="2,4")
    flags.add_argument("--sizes", default="1KiB,16KiB,256KiB,1MiB,4MiB,16MiB,64MiB")
    flags.add_argument("--repetitions", type=int, default=5)
    flags.add_argument("--transport", default="tcp")
    flags = flags.parse_args()
    sizes = [size(text) for text in flags.sizes.split(",")]
    scratch = tempfile.mkdtemp()
    mpi = os.path.join(scratch, "mpi_allreduce")
    has_mpi = shutil.which("mpicc") and shutil.which("mpirun")
    if has_mpi:
        subprocess.run(["mpicc", "-O2", os.path.join(HERE, "mpi_allreduce.c"), "-o", mpi], check=True)
    has_gloo = subprocess.run([flags.python, "-c", "import torch"], capture_output=True).returncode == 0
    for workers in flags.workers.split(","):
        def ours(reduce, parts=1):
            return [flags.strath, "bench", "allreduce", "--json", "--workers", workers, "--sizes", flags.sizes,
                    "--transport", flags.transport, "--reduce", reduce, "--parts", str(parts)]
        commands = {"f32": ours("f32"), "exact": ours("exact"), "exact x4": ours("exact", 4)}
        if has_mpi:
            # Left to choose among a host's networks, Open MPI with 4 ranks now and then stands still.
            btl = ["self,vader"] if flags.transport == "shm" else ["self,tcp", "--mca", "btl_tcp_if_include", "lo"]
            commands["Open MPI"] = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--mca", "btl", *btl, "-n", workers,
                                    mpi, *map(str, sizes)]
        if has_gloo:
            commands["Gloo"] = [flags.python, os.path.join(HERE, "gloo_allreduce.py"), workers, *map(str, sizes)]
        runs = [{name: times(command) for name, command in commands.items()} for _ in range(flags.repetitions)]
        print(f"{workers} ranks, {flags.transport}, {flags.repetitions} repetitions")
        print(" " * 16 + "".join(f"{text:>10}" for text in flags.sizes.split(",")))
        for name in commands:
            row = [statistics.median(run[name][s] / run["f32"][s] for run in runs) for s in sizes]
            if name == "f32":
                row = [statistics.median(run["f32"][s] for run in runs) for s in sizes]
                print(f"{'f32, us':16}" + "".join(f"{us:10.1f}" for us in row))
            else:
                print(f"{name + ' / f32':16}" + "".join(f"{ratio:10.2f}" for ratio in row))
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
