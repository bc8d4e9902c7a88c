/* Peer of `strath bench allreduce`: MPI, f32 sum in place; rank 0's median microseconds for each size.
 *   mpicc -O2 mpi_allreduce.c -o mpi_allreduce
 *   mpirun --oversubscribe --mca btl self,tcp -n WORKERS ./mpi_allreduce BYTES...      (self,vader: shared memory) */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

enum { WARM_UP = 5, MOST_ROUNDS = 300, LEAST_ROUNDS = 7 };

static int by_value(const void *a, const void *b) {
    double d = *(const double *)a - *(const double *)b;
    return d < 0 ? -1 : d > 0;
}

int main(int argc, char **argv) {
    int rank;
    static double times[MOST_ROUNDS];
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    for (int arg = 1; arg < argc; arg++) {
        long bytes = atol(argv[arg]), rounds = (256L << 20) / bytes;
        int values = (int)(bytes / 4);
        float *x = malloc(bytes);
        if (rounds > MOST_ROUNDS) rounds = MOST_ROUNDS;
        if (rounds < LEAST_ROUNDS) rounds = LEAST_ROUNDS;
        for (long round = -WARM_UP; round < rounds; round++) {
            for (int i = 0; i < values; i++) x[i] = 1e-3f;
            MPI_Barrier(MPI_COMM_WORLD);
            double since = MPI_Wtime();
            MPI_Allreduce(MPI_IN_PLACE, x, values, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
            if (round >= 0) times[round] = MPI_Wtime() - since;
        }
        qsort(times, rounds, sizeof *times, by_value);
        if (rank == 0) printf("{\"bytes\": %ld, \"us\": %.2f}\n", bytes, times[rounds / 2] * 1e6);
        fflush(stdout);
        free(x);
    }
    MPI_Finalize();
    return 0;
}
