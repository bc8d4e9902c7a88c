/* The least time of an all-reduce over loopback: processes that compute nothing give each other the bytes of a direct exchange, twice,
 * a segment of terms to every other and then one of results, as Strath's do. Prints the median microseconds of a round of the first
 * process, each after a barrier.
 *   cc -O3 loopback.c -o loopback && ./loopback RANKS SEGMENT_BYTES BYTES...
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_RANKS = 8, ROUNDS = 301 };

static int out[MOST_RANKS][MOST_RANKS], in[MOST_RANKS][MOST_RANKS];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec * 1e-3;
}

static int by_value(const void *a, const void *b) {
    double d = *(const double *)a - *(const double *)b;
    return d < 0 ? -1 : d > 0;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* One connection from a to b. */
static void join(int a, int b) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0), from = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (void *)&at, length) || listen(listener, 1) || getsockname(listener, (void *)&at, &length)) fail("listen");
    if (connect(from, (void *)&at, length)) fail("connect");
    out[a][b] = from;
    in[b][a] = accept(listener, NULL, NULL);
    close(listener);
    setsockopt(from, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(from, F_SETFL, O_NONBLOCK);
    fcntl(in[b][a], F_SETFL, O_NONBLOCK);
}

/* Sends so many bytes to every other and receives as many of each; those of a peer lie one stride behind the last one's. */
static void exchange(int me, int ranks, const char *from, long from_stride, char *to, long to_stride, long bytes) {
    long sent[MOST_RANKS] = {0}, had[MOST_RANKS] = {0};
    for (int left = 2 * (ranks - 1); left > 0;) {
        int moved = 0;
        for (int d = 1; d < ranks; d++) {
            int peer = (me + d) % ranks;
            if (sent[peer] < bytes) {
                long n = send(out[me][peer], from + peer * from_stride + sent[peer], bytes - sent[peer], 0);
                if (n < 0 && errno != EAGAIN) fail("send");
                if (n > 0) moved = 1, left -= (sent[peer] += n) == bytes;
            }
            if (had[peer] < bytes) {
                long n = recv(in[me][peer], to + peer * to_stride + had[peer], bytes - had[peer], 0);
                if (n == 0 || (n < 0 && errno != EAGAIN)) fail("recv");
                if (n > 0) moved = 1, left -= (had[peer] += n) == bytes;
            }
        }
        if (!moved) sched_yield();
    }
}

int main(int argc, char **argv) {
    int ranks = argc > 3 ? atoi(argv[1]) : 0, me = 0;
    long segment = argc > 3 ? atol(argv[2]) : 0;
    if (ranks < 2 || ranks > MOST_RANKS || segment < 1) {
        fprintf(stderr, "loopback RANKS SEGMENT_BYTES BYTES...: 2 to %d ranks\n", MOST_RANKS);
        return 2;
    }
    for (int a = 0; a < ranks; a++)
        for (int b = 0; b < ranks; b++)
            if (a != b) join(a, b);
    for (int rank = 1; rank < ranks && me == 0; rank++)
        if (fork() == 0) me = rank;
    for (int arg = 3; arg < argc; arg++) {
        long chunk = atol(argv[arg]) / ranks;
        char *vector = malloc(ranks * chunk), *terms = malloc(ranks * segment);
        memset(vector, 1, ranks * chunk);
        memset(terms, 1, ranks * segment);
        static double times[ROUNDS];
        for (int round = -3; round < ROUNDS; round++) {
            exchange(me, ranks, vector, 0, terms, segment, 1);
            double since = now();
            for (long at = 0; at < chunk; at += segment) {
                long bytes = chunk - at < segment ? chunk - at : segment;
                exchange(me, ranks, vector + at, chunk, terms, segment, bytes);
                exchange(me, ranks, vector + me * chunk + at, 0, vector + at, chunk, bytes);
            }
            if (round >= 0) times[round] = now() - since;
        }
        qsort(times, ROUNDS, sizeof *times, by_value);
        if (me == 0) printf("{\"bytes\": %ld, \"us\": %.2f}\n", atol(argv[arg]), times[ROUNDS / 2]);
        free(vector);
        free(terms);
    }
    if (me == 0)
        while (wait(NULL) > 0) {}
    return 0;
}
