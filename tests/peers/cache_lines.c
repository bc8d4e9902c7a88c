/* The least time of a small all-reduce in shared memory: two threads that do nothing else give each other so many cache lines.
 * Each round both write their lines and a counter, wait for the other's counter and add up what the other wrote; slots alternate,
 * so that nobody waits to be read. Prints the median nanoseconds of a round, in batches of 1000, and the least.
 *   cc -O3 -march=native -pthread cache_lines.c -o cache_lines && ./cache_lines LINES...
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LINE = 64, MOST_LINES = 4096, BATCH = 1000, BATCHES = 301 };

struct side {
    _Alignas(LINE) _Atomic uint64_t round;
    _Alignas(LINE) float slots[2][MOST_LINES * LINE / sizeof(float)];
};

static struct side sides[2];
static int lines;
static double batches[BATCHES];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double d = *(const double *)a - *(const double *)b;
    return d < 0 ? -1 : d > 0;
}

static void *exchange(void *arg) {
    int me = (int)(intptr_t)arg, values = lines * LINE / (int)sizeof(float);
    cpu_set_t core;
    CPU_ZERO(&core);
    CPU_SET(me, &core);
    pthread_setaffinity_np(pthread_self(), sizeof core, &core);
    static _Thread_local float sum[MOST_LINES * LINE / sizeof(float)];
    struct side *mine = &sides[me], *other = &sides[1 - me];
    uint64_t round = 0;
    for (int batch = -5; batch < BATCHES; batch++) {
        double since = now();
        for (int k = 0; k < BATCH; k++) {
            round++;
            float *to = mine->slots[round % 2], *from = other->slots[round % 2];
            for (int i = 0; i < values; i++) to[i] = sum[i] * 0.5f + 1e-3f;
            atomic_store_explicit(&mine->round, round, memory_order_release);
            while (atomic_load_explicit(&other->round, memory_order_acquire) < round) __builtin_ia32_pause();
            for (int i = 0; i < values; i++) sum[i] = to[i] + from[i];
        }
        if (me == 0 && batch >= 0) batches[batch] = (now() - since) / BATCH;
    }
    return NULL;
}

int main(int argc, char **argv) {
    for (int arg = 1; arg < argc; arg++) {
        lines = atoi(argv[arg]);
        if (lines < 1 || lines > MOST_LINES) return fprintf(stderr, "lines: 1 to %d\n", MOST_LINES), 2;
        memset(sides, 0, sizeof sides);
        pthread_t threads[2];
        for (intptr_t me = 0; me < 2; me++) pthread_create(&threads[me], NULL, exchange, (void *)me);
        for (int me = 0; me < 2; me++) pthread_join(threads[me], NULL);
        qsort(batches, BATCHES, sizeof *batches, by_value);
        printf("{\"lines\": %d, \"ns\": %.1f, \"least_ns\": %.1f}\n", lines, batches[BATCHES / 2], batches[0]);
    }
    return 0;
}
