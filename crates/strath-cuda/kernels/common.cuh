// What every kernel shares: the types of values, a thread's index, and sums over the threads of a block in one fixed order.
//
// An activation is of type T: float, or bf16 where the module is compiled with -DACTIVATION=bf16. Whatever is summed is summed in double. No kernel adds
// floating-point numbers atomically: the same launch gives the same bits each time.

#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
#endif

typedef unsigned int u32;
typedef long long i64;
typedef unsigned long long u64;

struct bf16 {
    unsigned short bits;
};
typedef ACTIVATION T;

__device__ inline float load(float x) { return x; }
__device__ inline float load(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

__device__ inline void store(float* to, float x) { *to = x; }
// Round to nearest, ties to even; what is not a number stays none.
__device__ inline void store(bf16* to, float x) {
    u32 bits = __float_as_uint(x);
    u32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    to->bits = (unsigned short)(x == x ? rounded : (bits >> 16) | 0x40u);
}

// The element of a launch of one thread an element.
__device__ inline i64 element() { return (i64)blockIdx.x * blockDim.x + threadIdx.x; }

// Threads of a block that sum.
#define BLOCK 256

// The sum of one number of each thread of a block of BLOCK, in the order of a binary tree; every thread gets it.
__device__ inline double block_sum(double value, double* room) {
    room[threadIdx.x] = value;
    __syncthreads();
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) room[threadIdx.x] += room[threadIdx.x + half];
        __syncthreads();
    }
    double sum = room[0];
    __syncthreads();
    return sum;
}

// The largest number of all threads of a block; what is not a number is passed over.
__device__ inline float block_max(float value, double* room) {
    room[threadIdx.x] = value;
    __syncthreads();
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) room[threadIdx.x] = fmax(room[threadIdx.x], room[threadIdx.x + half]);
        __syncthreads();
    }
    double most = room[0];
    __syncthreads();
    return (float)most;
}
