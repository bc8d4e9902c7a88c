// Sums over the rows of [rows, channels], and the norms that are made of them.
//
// A block of BLOCK threads takes `across` (a power of two) channels and every BLOCK / across-th of its `span` rows; blockIdx.y says which span. Each span's sums go to
// `partial` [spans, 2, channels], which one thread a channel adds up in order: sums do not depend on how blocks are scheduled.

#define COLUMN_ROOM __shared__ double first[BLOCK], second[BLOCK]

struct Column {
    i64 begin, end;
    int step, channel;
    bool is_inside;
};

__device__ inline Column column(int across, int span, int channels, i64 rows) {
    Column c;
    c.channel = blockIdx.x * across + threadIdx.x % across;
    c.step = BLOCK / across;
    i64 from = (i64)blockIdx.y * span;
    c.begin = from + threadIdx.x / across;
    c.end = from + span < rows ? from + span : rows;
    c.is_inside = c.channel < channels;
    return c;
}

// Adds up the threads of each channel, and leaves the span's sums.
__device__ inline void leave(Column c, double a, double b, double* first, double* second, double* partial, int across, int channels) {
    first[threadIdx.x] = a;
    second[threadIdx.x] = b;
    __syncthreads();
    for (int half = BLOCK / 2; half >= across; half /= 2) {
        if (threadIdx.x < half) {
            first[threadIdx.x] += first[threadIdx.x + half];
            second[threadIdx.x] += second[threadIdx.x + half];
        }
        __syncthreads();
    }
    if (threadIdx.x < across && c.is_inside) {
        double* to = partial + (i64)blockIdx.y * 2 * channels + c.channel;
        to[0] = first[threadIdx.x];
        to[channels] = second[threadIdx.x];
    }
}

// Sums of x and of x squared.
extern "C" __global__ void column_moments(const T* x, double* partial, int across, int span, int channels, i64 rows) {
    COLUMN_ROOM;
    Column c = column(across, span, channels, rows);
    double a = 0.0, b = 0.0;
    for (i64 row = c.begin; c.is_inside && row < c.end; row += c.step) {
        double value = load(x[row * channels + c.channel]);
        a += value;
        b += value * value;
    }
    leave(c, a, b, first, second, partial, across, channels);
}

// Sums of g.
extern "C" __global__ void column_sums(const T* g, double* partial, int across, int span, int channels, i64 rows) {
    COLUMN_ROOM;
    Column c = column(across, span, channels, rows);
    double a = 0.0;
    for (i64 row = c.begin; c.is_inside && row < c.end; row += c.step) a += load(g[row * channels + c.channel]);
    leave(c, a, 0.0, first, second, partial, across, channels);
}

// Which mean and which inverse deviation belong to a value: its channel's, its row's, or those of its image and group.
#define OF_CHANNEL 0
#define OF_ROW 1
#define OF_GROUP 2

struct Whose {
    int kind, area, groups, channels;
};

__device__ inline i64 whose(Whose w, i64 row, int channel) {
    if (w.kind == OF_CHANNEL) return channel;
    if (w.kind == OF_ROW) return row;
    return row / w.area * w.groups + channel / (w.channels / w.groups);
}

// Sums of g and of g times what x was normalised to; g where y is above 0, if there is a y, which is written back to g.
extern "C" __global__ void column_gradients(const T* x, const T* y, T* g, const double* mean, const double* inverse, double* partial,
                                            int kind, int area, int groups, int across, int span, int channels, i64 rows) {
    COLUMN_ROOM;
    Column c = column(across, span, channels, rows);
    Whose w = {kind, area, groups, channels};
    double a = 0.0, b = 0.0;
    for (i64 row = c.begin; c.is_inside && row < c.end; row += c.step) {
        i64 at = row * channels + c.channel, of = whose(w, row, c.channel);
        float value = load(g[at]);
        if (y && !(load(y[at]) > 0.0f)) {
            value = 0.0f;
            store(g + at, 0.0f);
        }
        a += value;
        b += value * ((load(x[at]) - mean[of]) * inverse[of]);
    }
    leave(c, a, b, first, second, partial, across, channels);
}

// The two sums of a channel, over the spans in order.
__device__ inline void add_up(const double* partial, int spans, int channels, int channel, double* first, double* second) {
    double a = 0.0, b = 0.0;
    for (int span = 0; span < spans; span++) {
        a += partial[(i64)span * 2 * channels + channel];
        b += partial[((i64)span * 2 + 1) * channels + channel];
    }
    *first = a;
    *second = b;
}

// The spans' sums added up, in f32 where a gradient is asked for and in f64 where its parts are needed again.
extern "C" __global__ void add_spans(const double* partial, float* first, float* second, double* sums, int spans, int channels) {
    int channel = element();
    if (channel >= channels) return;
    double a, b;
    add_up(partial, spans, channels, channel, &a, &b);
    if (first) first[channel] = (float)a;
    if (second) second[channel] = (float)b;
    if (sums) {
        sums[channel] = a;
        sums[channels + channel] = b;
    }
}

// Mean and inverse deviation of each channel from the spans' sums, and, where a place is given, the mean and the unbiased variance for the running ones.
extern "C" __global__ void batch_moments(const double* partial, double* mean, double* inverse, float* means, float* variances, double floor,
                                         int spans, int channels, i64 rows) {
    int channel = element();
    if (channel >= channels) return;
    double a, b;
    add_up(partial, spans, channels, channel, &a, &b);
    double middle = a / rows, variance = fmax(b / rows - middle * middle, 0.0);
    mean[channel] = middle;
    inverse[channel] = 1.0 / sqrt(variance + floor);
    if (means) {
        means[channel] = (float)middle;
        variances[channel] = (float)(variance * ((double)rows / (double)(rows > 1 ? rows - 1 : 1)));
    }
}

// The same from running statistics.
extern "C" __global__ void running_moments(const float* means, const float* variances, double* mean, double* inverse, double floor, int channels) {
    int channel = element();
    if (channel >= channels) return;
    mean[channel] = means[channel];
    inverse[channel] = 1.0 / sqrt((double)variances[channel] + floor);
}

// y = (x - mean) * inverse * weight + bias, and what follows.
extern "C" __global__ void normalise(const T* x, const T* shortcut, T* y, const double* mean, const double* inverse, const float* weight, const float* bias,
                                     int follows, int kind, int area, int groups, int channels, i64 len) {
    i64 at = element();
    if (at >= len) return;
    int channel = at % channels;
    Whose w = {kind, area, groups, channels};
    i64 of = whose(w, at / channels, channel);
    float scale = (float)(inverse[of] * weight[channel]);
    float value = (load(x[at]) - (float)mean[of]) * scale + bias[channel];
    store(y + at, followed(follows, value, shortcut, at));
}

// dx of a batch norm, from its sums over the batch; of constants there are none. dx may be g.
extern "C" __global__ void batch_norm_backward(const T* x, const T* g, T* dx, const double* mean, const double* inverse, const float* weight, const double* sums,
                                               int channels, i64 rows) {
    i64 at = element();
    if (at >= rows * channels) return;
    int channel = at % channels;
    double value = load(g[at]);
    if (sums) {
        double normal = (load(x[at]) - mean[channel]) * inverse[channel];
        value -= (sums[channel] + normal * sums[channels + channel]) / rows;
    }
    store(dx + at, (float)(value * inverse[channel] * weight[channel]));
}
