"""Peer of `strath bench allreduce`: Gloo through PyTorch, f32 sum over loopback; rank 0's median microseconds for each size.

    python gloo_allreduce.py WORKERS BYTES...
"""
import json, os, sys, time
import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def rank_main(rank, workers, port, sizes):
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    dist.init_process_group("gloo", rank=rank, world_size=workers)
    for size in sizes:
        x = torch.full((size // 4,), 1e-3)
        times = []
        for _ in range(5 + max(7, min(300, (256 << 20) // size))):
            x.fill_(1e-3)
            dist.barrier()
            since = time.perf_counter()
            dist.all_reduce(x)
            times.append(time.perf_counter() - since)
        times = sorted(times[5:])
        if rank == 0:
            print(json.dumps({"bytes": size, "us": times[len(times) // 2] * 1e6}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    workers, sizes = int(sys.argv[1]), [int(a) for a in sys.argv[2:]]
    mp.spawn(rank_main, (workers, 20000 + os.getpid() % 20000, sizes), nprocs=workers)
