// CUDA's dialect for a C++ compiler: the threads of a launch one after the other, those of a block in turns where they meet at a barrier.
//
// What is computed is what a GPU computes but for the functions of its mathematical library. It shows neither races between blocks nor memory that a real device would not let a
// kernel touch; arithmetic, indices and the shapes of launches it does.

#include <cfloat>
#include <cmath>
#include <csetjmp>
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

// A block whose threads meet: each has a stack of its own, made once, and goes on to its next barrier when it is its turn. From the second turn on control jumps from stack to
// stack without a call into the system.
static const size_t STACK = 1 << 16;
static std::vector<jmp_buf*> places;
static std::vector<char> done;
static jmp_buf scheduler;
static unsigned running;
static void (*body)();

static void leave_turn() {
    if (_setjmp(*places[running]) == 0) _longjmp(scheduler, 1);
}

static void __syncthreads() { leave_turn(); }

static void forever() {
    for (;;) {
        body();
        done[running] = 1;
        leave_turn();
    }
}

static void take_turn() {
    if (_setjmp(scheduler) != 0) return;
    if (running < places.size()) _longjmp(*places[running], 1);
    places.push_back(new jmp_buf[1]);
    static ucontext_t before, fiber;
    getcontext(&fiber);
    fiber.uc_stack.ss_sp = new char[STACK];
    fiber.uc_stack.ss_size = STACK;
    fiber.uc_link = nullptr;
    makecontext(&fiber, forever, 0);
    swapcontext(&before, &fiber);
}

static void run_in_turns(unsigned threads) {
    done.assign(threads, 0);
    static unsigned left;
    for (left = threads; left > 0;) {
        left = 0;
        for (running = 0; running < threads; running++) {
            if (done[running]) continue;
            threadIdx.x = running;
            take_turn();
            left += !done[running];
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
