// A block a row, or a block an image and group: norms within an example, softmax and cross-entropy.

// Mean and inverse deviation of `values` values at `stride`-ed runs of `run`, for each of a launch's blocks: a row of a layer norm (one run), or a group of an image.
__device__ inline void moments_of(const T* x, int runs, int run, i64 stride, double floor, double* mean, double* inverse) {
    __shared__ double room[BLOCK];
    double a = 0.0, b = 0.0;
    for (int at = threadIdx.x; at < runs * run; at += BLOCK) {
        double value = load(x[at / run * stride + at % run]);
        a += value;
        b += value * value;
    }
    a = block_sum(a, room) / (runs * run);
    b = block_sum(b, room) / (runs * run);
    if (threadIdx.x == 0) {
        *mean = a;
        *inverse = 1.0 / sqrt(fmax(b - a * a, 0.0) + floor);
    }
}

extern "C" __global__ void row_moments(const T* x, double* mean, double* inverse, double floor, int channels) {
    i64 row = blockIdx.x;
    moments_of(x + row * channels, 1, channels, 0, floor, mean + row, inverse + row);
}

// Of images of `area` pixels, groups of channels / groups channels: blockIdx.x = image * groups + group.
extern "C" __global__ void group_moments(const T* x, double* mean, double* inverse, double floor, int area, int groups, int channels) {
    i64 image = blockIdx.x / groups;
    int group = blockIdx.x % groups, width = channels / groups;
    moments_of(x + image * area * channels + group * width, area, width, channels, floor, mean + blockIdx.x, inverse + blockIdx.x);
}

// dx = inverse * (u - mean(u) - normal * mean(u normal)) with u = g * weight, over such a set of values. dx may be g.
__device__ inline void norm_backward(const T* x, const T* g, T* dx, double mean, double inverse, const float* weight, int runs, int run, i64 stride) {
    __shared__ double room[BLOCK];
    double a = 0.0, b = 0.0;
    for (int at = threadIdx.x; at < runs * run; at += BLOCK) {
        i64 place = at / run * stride + at % run;
        double u = load(g[place]) * weight[at % run];
        a += u;
        b += u * ((load(x[place]) - mean) * inverse);
    }
    a = block_sum(a, room) / (runs * run);
    b = block_sum(b, room) / (runs * run);
    for (int at = threadIdx.x; at < runs * run; at += BLOCK) {
        i64 place = at / run * stride + at % run;
        double u = load(g[place]) * weight[at % run], normal = (load(x[place]) - mean) * inverse;
        store(dx + place, (float)((u - a - normal * b) * inverse));
    }
}

extern "C" __global__ void row_norm_backward(const T* x, const T* g, T* dx, const double* mean, const double* inverse, const float* weight, int channels) {
    i64 row = blockIdx.x;
    norm_backward(x + row * channels, g + row * channels, dx + row * channels, mean[row], inverse[row], weight, 1, channels, 0);
}

extern "C" __global__ void group_norm_backward(const T* x, const T* g, T* dx, const double* mean, const double* inverse, const float* weight, int area, int groups, int channels) {
    i64 image = blockIdx.x / groups;
    int group = blockIdx.x % groups, width = channels / groups;
    i64 from = image * area * channels + group * width;
    norm_backward(x + from, g + from, dx + from, mean[blockIdx.x], inverse[blockIdx.x], weight + group * width, area, width, channels);
}

// Softmax of scale * x over each row, in place.
extern "C" __global__ void softmax(T* x, float scale, int width) {
    __shared__ double room[BLOCK];
    T* row = x + (i64)blockIdx.x * width;
    float most = -INFINITY;
    for (int at = threadIdx.x; at < width; at += BLOCK) most = fmaxf(most, scale * load(row[at]));
    most = block_max(most, room);
    double sum = 0.0;
    for (int at = threadIdx.x; at < width; at += BLOCK) sum += expf(scale * load(row[at]) - most);
    sum = block_sum(sum, room);
    for (int at = threadIdx.x; at < width; at += BLOCK) store(row + at, (float)(expf(scale * load(row[at]) - most) / sum));
}

// From softmax's result p and the gradient g of it the gradient of x, into g: scale * p * (g - <g, p>).
extern "C" __global__ void softmax_backward(const T* p, T* g, float scale, int width) {
    __shared__ double room[BLOCK];
    const T* of = p + (i64)blockIdx.x * width;
    T* row = g + (i64)blockIdx.x * width;
    double sum = 0.0;
    for (int at = threadIdx.x; at < width; at += BLOCK) sum += load(of[at]) * load(row[at]);
    sum = block_sum(sum, room);
    for (int at = threadIdx.x; at < width; at += BLOCK) store(row + at, (float)(scale * load(of[at]) * (load(row[at]) - sum)));
}

// Cross-entropy of each row of logits with its label, smoothed: -sum_k t_k log softmax(x)_k with t = (1 - s) onehot + s / classes. Where asked for, its gradient times
// `factor`, and whether the first of the largest is the label. A label that is no class has no loss that is a number.
extern "C" __global__ void cross_entropy(const T* x, const u32* labels, double* losses, u32* is_correct, T* dx, double smoothing, double factor, int classes) {
    __shared__ double room[BLOCK];
    const T* row = x + (i64)blockIdx.x * classes;
    u32 label = labels[blockIdx.x];
    float most = -INFINITY;
    for (int at = threadIdx.x; at < classes; at += BLOCK) most = fmaxf(most, load(row[at]));
    most = block_max(most, room);
    double sum = 0.0, all = 0.0, first = classes;
    for (int at = threadIdx.x; at < classes; at += BLOCK) {
        float value = load(row[at]);
        sum += exp((double)value - most);
        all += value;
        if (value == most && at < first) first = at;
    }
    sum = block_sum(sum, room);
    all = block_sum(all, room);
    first = -block_max((float)-first, room);
    if (threadIdx.x == 0) {
        double whole = log(sum) + most;
        losses[blockIdx.x] = whole - (1.0 - smoothing) * (label < classes ? load(row[label]) : NAN) - smoothing / classes * all;
        if (is_correct) is_correct[blockIdx.x] = first == label;
    }
    if (!dx) return;
    for (int at = threadIdx.x; at < classes; at += BLOCK) {
        double target = smoothing / classes + (at == label ? 1.0 - smoothing : 0.0);
        store(dx + (i64)blockIdx.x * classes + at, (float)((exp((double)load(row[at]) - most) / sum - target) * factor));
    }
}

// Queries, keys and values [N, T, 3, heads, width] to [3, N, heads, T, width], and back.
extern "C" __global__ void split_heads(const T* x, T* y, int tokens, int heads, int width, i64 len) {
    i64 at = element();
    if (at >= len) return;
    int within = at % width;
    i64 row = at / width, head = row / tokens;
    i64 images = len / 3 / ((i64)tokens * heads * width), image = head / heads % images, what = head / heads / images;
    i64 from = ((image * tokens + row % tokens) * 3 + what) * heads + head % heads;
    store(y + at, load(x[from * width + within]));
}

extern "C" __global__ void join_heads(const T* y, T* x, int parts, int tokens, int heads, int width, i64 len) {
    i64 at = element();
    if (at >= len) return;
    int within = at % width, head = at / width % heads, what = at / ((i64)width * heads) % parts;
    i64 row = at / ((i64)width * heads * parts), images = len / ((i64)tokens * parts * heads * width);
    i64 from = ((what * images + row / tokens) * heads + head) * tokens + row % tokens;
    store(x + at, load(y[from * width + within]));
}
