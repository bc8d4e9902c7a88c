// CUDA's dialect for a C++ compiler: the threads of a launch one after the other, those of a block in turns where they meet at a barrier.
//
// What is computed is what a GPU computes but for the functions of its mathematical library. It shows neither races between blocks nor memory that a real device would not let a
// kernel touch; arithmetic, indices and the shapes of launches it does.

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>
#include <ucontext.h>

#define __global__
#define __device__
#define __shared__ static

struct Place {
    unsigned x, y, z;
};
static Place threadIdx, blockIdx, blockDim, gridDim;

static inline float __uint_as_float(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}
static inline unsigned __float_as_uint(float value) {
    unsigned bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}
static inline long long __double2ll_rn(double value) {
    if (value != value) return 0;
    if (value >= 9223372036854775808.0) return INT64_MAX;
    if (value <= -9223372036854775808.0) return INT64_MIN;
    return std::llrint(value);
}
static inline int __clzll(unsigned long long bits) { return bits ? __builtin_clzll(bits) : 64; }
static inline void atomicMin(unsigned long long* to, unsigned long long value) {
    if (value < *to) *to = value;
}

// A block whose threads meet: each has a stack of its own and goes on to its next barrier when it is its turn.
static const size_t STACK = 1 << 16;
static ucontext_t scheduler;
static std::vector<ucontext_t> fibers;
static std::vector<char> stacks, done;
static unsigned running;
static void (*body)();

static void __syncthreads() { swapcontext(&fibers[running], &scheduler); }

static void whole() {
    body();
    done[running] = 1;
    swapcontext(&fibers[running], &scheduler);
}

static void run_in_turns(unsigned threads) {
    fibers.resize(threads);
    stacks.resize(threads * STACK);
    done.assign(threads, 0);
    for (unsigned t = 0; t < threads; t++) {
        getcontext(&fibers[t]);
        fibers[t].uc_stack.ss_sp = &stacks[t * STACK];
        fibers[t].uc_stack.ss_size = STACK;
        fibers[t].uc_link = nullptr;
        makecontext(&fibers[t], whole, 0);
    }
    for (unsigned left = threads; left > 0;) {
        left = 0;
        for (unsigned t = 0; t < threads; t++) {
            if (done[t]) continue;
            threadIdx.x = running = t;
            swapcontext(&scheduler, &fibers[t]);
            left += !done[t];
        }
    }
}

static void** arguments;

template <class... A, size_t... I>
static void call(void (*kernel)(A...), std::index_sequence<I...>) {
    kernel(*(A*)arguments[I]...);
}

template <class... A>
static void with_arguments(void (*kernel)(A...)) {
    call(kernel, std::index_sequence_for<A...>());
}

// A launch of `kernel`; `meets`: whether its threads meet at barriers.
template <void (*WITH)()>
static void launch(bool meets, Place grid, unsigned threads, void** given) {
    arguments = given;
    gridDim = grid;
    blockDim = {threads, 1, 1};
    threadIdx = {0, 0, 0};
    body = WITH;
    for (unsigned y = 0; y < grid.y; y++)
        for (unsigned x = 0; x < grid.x; x++) {
            blockIdx = {x, y, 0};
            if (meets) {
                run_in_turns(threads);
            } else {
                for (unsigned t = 0; t < threads; t++) {
                    threadIdx.x = t;
                    WITH();
                }
            }
        }
}

struct Entry {
    const char* name;
    void (*launch)(bool, Place, unsigned, void**);
    bool meets;
};

#define KERNEL(name) {#name, launch<[]() { with_arguments(name); }>, false}
#define MEETING_KERNEL(name) {#name, launch<[]() { with_arguments(name); }>, true}
