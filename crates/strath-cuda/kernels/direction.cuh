
// ---- Random directions: Philox4x32-10 (Salmon et al. 2011) and Box and Muller's draws, to the bits of the processor's.

// Four words of a counter under a key.
__device__ inline void philox(u32* counter, u32 key, u32 other) {
    for (int round = 0; round < 10; ++round) {
        u64 a = (u64)0xd2511f53u * counter[0], b = (u64)0xcd9e8d57u * counter[2];
        u32 first = (u32)(b >> 32) ^ counter[1] ^ key, third = (u32)(a >> 32) ^ counter[3] ^ other;
        counter[0] = first;
        counter[1] = (u32)b;
        counter[2] = third;
        counter[3] = (u32)a;
        key += 0x9e3779b9u;
        other += 0xbb67ae85u;
    }
}

// ln((word + 1) / 2^32) by the series of artanh, as strath_kernels::vector::normals has it.
__device__ inline double log_of(u32 word) {
    int exponent;
    double m = 2.0 * frexp((double)word + 1.0, &exponent), e = (double)(exponent - 33);
    if (m > 1.41421356237309504880) {
        m = 0.5 * m;
        e = e + 1.0;
    }
    double f = (m - 1.0) / (m + 1.0), s = f * f, p = 1.0 / 21.0;
    for (int odd = 19; odd > 0; odd -= 2) p = p * s + 1.0 / odd;
    return e * 0.693147180559945309417 + 2.0 * f * p;
}

// Cosine and sine of 2 pi word / 2^32 by Taylor's series, likewise.
__device__ inline void turn_by(u32 word, double* cosine, double* sine) {
    u32 quarter = (word + (1u << 29)) >> 30;
    double x = (double)(int)(word - (quarter << 30)) * (2.0 * 3.14159265358979323846 / 4294967296.0), s = x * x;
    double p = 1.0 / 355687428096000.0;
    p = p * s - 1.0 / 1307674368000.0;
    p = p * s + 1.0 / 6227020800.0;
    p = p * s - 1.0 / 39916800.0;
    p = p * s + 1.0 / 362880.0;
    p = p * s - 1.0 / 5040.0;
    p = p * s + 1.0 / 120.0;
    p = p * s - 1.0 / 6.0;
    p = p * s + 1.0;
    double across = x * p;
    p = 1.0 / 20922789888000.0;
    p = p * s - 1.0 / 87178291200.0;
    p = p * s + 1.0 / 479001600.0;
    p = p * s - 1.0 / 3628800.0;
    p = p * s + 1.0 / 40320.0;
    p = p * s - 1.0 / 720.0;
    p = p * s + 1.0 / 24.0;
    p = p * s - 0.5;
    double along = p * s + 1.0;
    int is_odd = quarter & 1u;
    *cosine = is_odd ? across : along;
    *sine = is_odd ? along : across;
    if (quarter == 1 || quarter == 2) *cosine = -*cosine;
    if (quarter >= 2) *sine = -*sine;
}

// A draw of N(0, 1) for each of len values, four by a thread: those of the stream of a key and a domain.
extern "C" __global__ void normals(int key, int other, int low, int high, float* draws, i64 len) {
    i64 block = element();
    if (4 * block >= len) return;
    u32 words[4] = {(u32)block, (u32)(block >> 32), (u32)low, (u32)high};
    philox(words, (u32)key, (u32)other);
    for (int pair = 0; pair < 4; pair += 2) {
        double radius = sqrt(-2.0 * log_of(words[pair])), cosine, sine;
        turn_by(words[pair + 1], &cosine, &sine);
        if (4 * block + pair < len) draws[4 * block + pair] = (float)(radius * cosine);
        if (4 * block + pair + 1 < len) draws[4 * block + pair + 1] = (float)(radius * sine);
    }
}
