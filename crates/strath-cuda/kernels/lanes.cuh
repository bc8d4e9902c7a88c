// A lane's mathematics on flat f32 vectors of the length of the model: what strath-kernels' `vector` computes on a processor, value by value to the same bits.

#define GRADIENT_SCALE 281474976710656.0 /* 2^48 */

__device__ inline double weighted(float value, double weight) { return (double)(float)((double)value * weight); }

// The index of the first value whose magnitude is not below `limit`, or not a number, kept in `outside`: the least of all of them, whoever comes first.
__device__ inline void note(float value, float limit, i64 at, u64* outside) {
    if (!(fabsf(value) < limit)) atomicMin(outside, (u64)at);
}

// Adds to the nearest integer; a sum of values that were out of range may go round.
__device__ inline void add_to(i64* sum, double value) { *sum = (i64)((u64)*sum + (u64)__double2ll_rn(value)); }

// sum += f32(weight * values), 48 fractional bits.
extern "C" __global__ void add_fixed(i64* sum, const float* values, double weight, float limit, u64* outside, i64 len) {
    i64 at = element();
    if (at >= len) return;
    note(values[at], limit, at, outside);
    add_to(sum + at, weighted(values[at], weight) * GRADIENT_SCALE);
}

// The same with 48 more bits below.
extern "C" __global__ void add_wide(i64* high, i64* low, const float* values, double weight, float limit, u64* outside, i64 len) {
    i64 at = element();
    if (at >= len) return;
    note(values[at], limit, at, outside);
    double scaled = weighted(values[at], weight) * GRADIENT_SCALE, whole = rint(scaled);
    add_to(high + at, whole);
    add_to(low + at, (scaled - whole) * GRADIENT_SCALE);
}

extern "C" __global__ void add_floats(float* sum, const float* values, double weight, float limit, u64* outside, i64 len) {
    i64 at = element();
    if (at >= len) return;
    note(values[at], limit, at, outside);
    sum[at] += (float)((double)values[at] * weight);
}

extern "C" __global__ void find_outside(const float* values, float limit, u64* outside, i64 len) {
    i64 at = element();
    if (at < len) note(values[at], limit, at, outside);
}

// Sums rounded once.
extern "C" __global__ void round_fixed(const i64* sum, float* rounded, i64 len) {
    i64 at = element();
    if (at < len) rounded[at] = (float)sum[at] * (float)(1.0 / GRADIENT_SCALE);
}

// The f32 nearest to high 2^-48 + low 2^-96, ties to even: the 128-bit sum's 64 highest bits, the lowest of them set where more follow.
extern "C" __global__ void round_wide(const i64* high, const i64* low, float* rounded, i64 len) {
    i64 at = element();
    if (at >= len) return;
    u64 bottom = ((u64)high[at] << 48) + (u64)low[at];
    i64 top = (high[at] >> 16) + (low[at] >> 63) + (bottom < (u64)low[at] ? 1 : 0);
    bool is_negative = top < 0;
    u64 upper = top, lower = bottom;
    if (is_negative) {
        lower = ~lower + 1;
        upper = ~upper + (lower == 0 ? 1 : 0);
    }
    if (upper == 0 && lower == 0) {
        rounded[at] = 0.0f;
        return;
    }
    int zeros = upper ? __clzll(upper) : 64 + __clzll(lower);
    if (zeros >= 64) {
        upper = lower;
        lower = 0;
    }
    int shift = zeros % 64;
    u64 bits = shift ? upper << shift | lower >> (64 - shift) : upper;
    if (shift ? lower << shift : lower) bits |= 1;
    float magnitude = ldexpf((float)bits, -32 - zeros);
    rounded[at] = is_negative ? -magnitude : magnitude;
}

// partial[block] = the sum of what `kind` says over the block's part of a vector: g^2; ((|w| + eta) g)^2; a b.
#define SQUARES 0
#define SCALED_SQUARES 1
#define PRODUCTS 2
#define PART 4096

extern "C" __global__ void sum_parts(const float* a, const float* b, double eta, int kind, double* partial, i64 len) {
    __shared__ double room[BLOCK];
    i64 from = (i64)blockIdx.x * PART, to = from + PART < len ? from + PART : len;
    double sum = 0.0;
    for (i64 at = from + threadIdx.x; at < to; at += BLOCK) {
        double value = a[at];
        if (kind == SCALED_SQUARES) value = (fabs((double)b[at]) + eta) * value;
        sum += kind == PRODUCTS ? value * b[at] : value * value;
    }
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// The parts' sums in order, by one block: thread by thread every BLOCK-th, then the tree.
extern "C" __global__ void add_parts(const double* partial, double* sum, int parts) {
    __shared__ double room[BLOCK];
    double mine = 0.0;
    for (int at = threadIdx.x; at < parts; at += BLOCK) mine += partial[at];
    mine = block_sum(mine, room);
    if (threadIdx.x == 0) *sum += mine;
}

// What a lane's epsilon is scaled by: rho / norm, 0 of a gradient of zeros, from the sum of squares; no copy to the host.
extern "C" __global__ void factor_of(const double* squares, double rho, double* factor) {
    double norm = sqrt(*squares);
    *factor = norm > 0.0 ? rho / norm : 0.0;
}

// lifted = w + f32(factor * t^2 g), t = 1 or |w| + eta; partial[block] = the block's sum of epsilon's squares.
extern "C" __global__ void lift(const float* g, const float* w, const double* factor, double eta, int is_adaptive, float* lifted, double* partial, i64 len) {
    __shared__ double room[BLOCK];
    i64 from = (i64)blockIdx.x * PART, to = from + PART < len ? from + PART : len;
    double sum = 0.0, by = *factor;
    for (i64 at = from + threadIdx.x; at < to; at += BLOCK) {
        double t = is_adaptive ? fabs((double)w[at]) + eta : 1.0;
        float epsilon = (float)(is_adaptive ? by * (t * g[at] * t) : by * g[at]);
        lifted[at] = w[at] + epsilon;
        sum += (double)epsilon * epsilon;
    }
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// g += lambda w.
extern "C" __global__ void add_scaled(float* g, const float* w, float lambda, i64 len) {
    i64 at = element();
    if (at < len) g[at] += lambda * w[at];
}

// What clipping leaves of a gradient, from its sum of squares: the factor, 1 where it is short enough.
extern "C" __global__ void clip_factor(const double* squares, double most, double* factor) {
    double norm = sqrt(*squares);
    *factor = norm > most ? most / norm : 1.0;
}

__device__ inline float clipped(float g, const double* factor) { return factor && *factor != 1.0 ? (float)((double)g * *factor) : g; }

// w <- w - lr (g + decay w).
extern "C" __global__ void sgd(float* w, const float* g, const double* clip, float lr, float decay, i64 len) {
    i64 at = element();
    if (at < len) w[at] -= lr * (clipped(g[at], clip) + decay * w[at]);
}

// g <- g + decay w; b <- mu b + g; w <- w - lr b, or with Nesterov w <- w - lr (g + mu b).
extern "C" __global__ void sgd_momentum(float* w, const float* g, float* b, const double* clip, float lr, float decay, float momentum, int nesterov, i64 len) {
    i64 at = element();
    if (at >= len) return;
    float decayed = clipped(g[at], clip) + decay * w[at];
    b[at] = momentum * b[at] + decayed;
    w[at] -= lr * (nesterov ? decayed + momentum * b[at] : b[at]);
}

// m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; w <- keep w - rate m / (sqrt(root v) + eps).
extern "C" __global__ void adamw(float* w, const float* g, float* m, float* v, const double* clip, float keep1, float take1, float keep2, float take2,
                                 float rate, float root, float keep, float eps, i64 len) {
    i64 at = element();
    if (at >= len) return;
    float short_g = clipped(g[at], clip);
    m[at] = keep1 * m[at] + take1 * short_g;
    v[at] = keep2 * v[at] + take2 * (short_g * short_g);
    w[at] = keep * w[at] - rate * m[at] / (sqrtf(v[at] * root) + eps);
}
