
// ---- A lane's epsilon over the ball of a norm other than p = 2, from the magnitudes |t g|, t = 1 or |w| + eta.

// Of an infinite p, as kernels are told it.
#define INFINITE_P -1.0
// Where none is largest, as all are zero.
#define NOWHERE 0x7fffffffffffffffll

__device__ inline double scale_of(const float* w, i64 at, double eta, int is_adaptive) { return is_adaptive ? fabs((double)w[at]) + eta : 1.0; }

// The largest of one number of each thread of a block, at the first of several places; every thread gets it.
__device__ inline void block_largest(double* value, i64* place, double* room, i64* places) {
    room[threadIdx.x] = *value;
    places[threadIdx.x] = *place;
    __syncthreads();
    for (int half = BLOCK / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            double other = room[threadIdx.x + half], mine = room[threadIdx.x];
            if (other > mine || (other == mine && places[threadIdx.x + half] < places[threadIdx.x])) {
                room[threadIdx.x] = other;
                places[threadIdx.x] = places[threadIdx.x + half];
            }
        }
        __syncthreads();
    }
    *value = room[0];
    *place = places[0];
    __syncthreads();
}

// Of each part of a run that begins at `offset`.
extern "C" __global__ void largest_parts(const float* g, const float* w, double eta, int is_adaptive, double* values, i64* places, i64 offset, i64 len) {
    __shared__ double room[BLOCK];
    __shared__ i64 taken[BLOCK];
    i64 from = (i64)blockIdx.x * PART, to = from + PART < len ? from + PART : len;
    double most = 0.0;
    i64 place = NOWHERE;
    for (i64 at = from + threadIdx.x; at < to; at += BLOCK) {
        double magnitude = fabs(scale_of(w, at, eta, is_adaptive) * g[at]);
        if (magnitude > most) {
            most = magnitude;
            place = offset + at;
        }
    }
    block_largest(&most, &place, room, taken);
    if (threadIdx.x == 0) {
        values[blockIdx.x] = most;
        places[blockIdx.x] = place;
    }
}

// The largest of the parts, by one block, where it is larger than that of the runs before.
extern "C" __global__ void largest_of(const double* values, const i64* places, int parts, double* largest, i64* where) {
    __shared__ double room[BLOCK];
    __shared__ i64 taken[BLOCK];
    double most = 0.0;
    i64 place = NOWHERE;
    for (int at = threadIdx.x; at < parts; at += BLOCK) {
        if (values[at] > most) {
            most = values[at];
            place = places[at];
        }
    }
    block_largest(&most, &place, room, taken);
    if (threadIdx.x == 0 && most > *largest) {
        *largest = most;
        *where = place;
    }
}

// The sums of magnitudes, or of their powers where they are taken relative to the largest: q is huge for p near 1.
extern "C" __global__ void magnitude_parts(const float* g, const float* w, double eta, int is_adaptive, const double* largest, double power, double* partial, i64 len) {
    __shared__ double room[BLOCK];
    i64 from = (i64)blockIdx.x * PART, to = from + PART < len ? from + PART : len;
    double sum = 0.0, most = largest ? *largest : 1.0;
    for (i64 at = from + threadIdx.x; at < to; at += BLOCK) {
        double magnitude = fabs(scale_of(w, at, eta, is_adaptive) * g[at]);
        if (most > 0.0) sum += largest ? pow(magnitude / most, power) : magnitude;
    }
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// What epsilon is scaled by, and the square of the dual norm.
extern "C" __global__ void dual_of(const double* sum, const double* largest, double p, double rho, double* factor, double* squares) {
    double dual = *largest, by = rho;
    if (p == INFINITE_P) dual = *sum;
    else if (p != 1.0 && *largest > 0.0) {
        dual = *largest * pow(*sum, 1.0 - 1.0 / p);
        by = rho / pow(*sum, 1.0 / p);
    }
    *factor = by;
    *squares = dual * dual;
}

// lifted = w + f32(epsilon); partial[block] = the block's sum of epsilon's squares.
extern "C" __global__ void lift_in_ball(const float* g, const float* w, const double* factor, const double* largest, const i64* where, double eta, int is_adaptive, double p, float* lifted, double* partial, i64 offset, i64 len) {
    __shared__ double room[BLOCK];
    i64 from = (i64)blockIdx.x * PART, to = from + PART < len ? from + PART : len;
    double sum = 0.0, exponent = 1.0 / (p - 1.0);
    for (i64 at = from + threadIdx.x; at < to; at += BLOCK) {
        double t = scale_of(w, at, eta, is_adaptive), magnitude = 0.0;
        // An entry without a gradient is passed over: 0^0 is 1.
        if (g[at] != 0.0f) {
            if (p == INFINITE_P) magnitude = *factor * t;
            else if (p == 1.0) magnitude = offset + at == *where ? *factor * t : 0.0;
            else if (*largest > 0.0) magnitude = *factor * pow(fabs(t * g[at]) / *largest, exponent) * t;
        }
        float epsilon = (float)copysign(magnitude, (double)g[at]);
        lifted[at] = w[at] + epsilon;
        sum += (double)epsilon * epsilon;
    }
    sum = block_sum(sum, room);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
