// Element by element, in one pass over memory.

extern "C" __global__ void relu(const T* x, T* y, i64 len) {
    i64 at = element();
    if (at < len) store(y + at, fmaxf(load(x[at]), 0.0f));
}

// g where ReLU's result y is above 0, in place.
extern "C" __global__ void relu_backward(const T* y, T* g, i64 len) {
    i64 at = element();
    if (at < len && !(load(y[at]) > 0.0f)) store(g + at, 0.0f);
}

extern "C" __global__ void add(const T* a, const T* b, T* y, i64 len) {
    i64 at = element();
    if (at < len) store(y + at, load(a[at]) + load(b[at]));
}

// What follows a bias or a norm: nothing, ReLU, or a shortcut and ReLU.
#define NOTHING 0
#define RELU 1
#define ADD_RELU 2

__device__ inline float followed(int follows, float y, const T* shortcut, i64 at) {
    if (follows == ADD_RELU) y += load(shortcut[at]);
    return follows == NOTHING ? y : fmaxf(y, 0.0f);
}

// y = x + bias, and what follows; rows of `channels`. y may be x.
extern "C" __global__ void bias(const T* x, const float* of, const T* shortcut, T* y, int follows, int channels, i64 len) {
    i64 at = element();
    if (at < len) store(y + at, followed(follows, load(x[at]) + of[at % channels], shortcut, at));
}

// The exact GELU of x + bias, and its slope, which is all that the way back needs. y may be x.
extern "C" __global__ void bias_gelu(const T* x, const float* of, T* y, T* slope, int channels, i64 len) {
    i64 at = element();
    if (at >= len) return;
    float z = load(x[at]) + of[at % channels];
    float below = 0.5f * (1.0f + erff(z * 0.70710678f));
    store(y + at, z * below);
    store(slope + at, below + z * 0.39894228f * expf(-0.5f * z * z));
}

// a *= b.
extern "C" __global__ void multiply(T* a, const T* b, i64 len) {
    i64 at = element();
    if (at < len) store(a + at, load(a[at]) * load(b[at]));
}
