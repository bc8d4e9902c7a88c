// Values that move and do not change, and means over an image.

// f32 values as activations.
extern "C" __global__ void rounded(const float* x, T* y, i64 len) {
    i64 at = element();
    if (at < len) store(y + at, x[at]);
}

// Images [N, C, H, W] with channels innermost, [N, H, W, C]; `area` = H W.
extern "C" __global__ void channels_last(const float* x, T* y, int channels, int area, i64 len) {
    i64 at = element();
    if (at >= len) return;
    i64 pixel = at / channels, image = pixel / area;
    store(y + at, x[(image * channels + at % channels) * area + pixel % area]);
}

// Weights [O, C, k] to [O, k, C], and, the other way, their gradients; `kernel` = kh kw.
extern "C" __global__ void kernel_last_to_channels_last(const float* x, T* y, int channels, int kernel, i64 len) {
    i64 at = element();
    if (at >= len) return;
    i64 row = at / channels, out = row / kernel;
    store(y + at, x[(out * channels + at % channels) * kernel + row % kernel]);
}

extern "C" __global__ void channels_last_to_kernel_last(const T* x, float* y, int channels, int kernel, i64 len) {
    i64 at = element();
    if (at >= len) return;
    i64 row = at / kernel, out = row / channels;
    y[at] = load(x[(out * kernel + at % kernel) * channels + row % channels]);
}

// Each square patch of images [N, C, H, W] as a row [N, patches, C patch patch].
extern "C" __global__ void patches(const float* x, T* y, int channels, int height, int width, int patch, i64 len) {
    i64 at = element();
    if (at >= len) return;
    int values = channels * patch * patch, across = width / patch, count = across * (height / patch);
    i64 row = at / values, image = row / count;
    int place = row % count, value = at % values;
    int channel = value / (patch * patch), dy = value / patch % patch, dx = value % patch;
    i64 line = (image * channels + channel) * height + place / across * patch + dy;
    store(y + at, x[line * width + place % across * patch + dx]);
}

// x [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), out]: every stride-th pixel, `before` channels of zeros in front.
extern "C" __global__ void subsample(const T* x, T* y, int height, int width, int channels, int stride, int before, int out, i64 len) {
    i64 at = element();
    if (at >= len) return;
    int channel = at % out - before, across = (width + stride - 1) / stride, down = (height + stride - 1) / stride;
    i64 pixel = at / out, image = pixel / (across * down);
    int row = pixel / across % down, column = pixel % across;
    bool is_inside = channel >= 0 && channel < channels;
    store(y + at, is_inside ? load(x[((image * height + row * stride) * width + column * stride) * channels + channel]) : 0.0f);
}

extern "C" __global__ void subsample_backward(const T* g, T* dx, int height, int width, int channels, int stride, int before, int out, i64 len) {
    i64 at = element();
    if (at >= len) return;
    i64 pixel = at / channels, image = pixel / (height * width);
    int row = pixel / width % height, column = pixel % width;
    int across = (width + stride - 1) / stride, down = (height + stride - 1) / stride;
    bool is_taken = row % stride == 0 && column % stride == 0;
    i64 from = ((image * down + row / stride) * across + column / stride) * out + before + at % channels;
    store(dx + at, is_taken ? load(g[from]) : 0.0f);
}

// Means over the pixels of x [N, area, C], [N, C]: a thread a mean.
extern "C" __global__ void average(const T* x, T* y, int area, int channels, i64 len) {
    i64 at = element();
    if (at >= len) return;
    const T* from = x + at / channels * area * channels + at % channels;
    double sum = 0.0;
    for (int pixel = 0; pixel < area; pixel++) sum += load(from[(i64)pixel * channels]);
    store(y + at, (float)(sum / area));
}

extern "C" __global__ void average_backward(const T* g, T* dx, int area, int channels, i64 len) {
    i64 at = element();
    if (at < len) store(dx + at, load(g[at / ((i64)area * channels) * channels + at % channels]) / (float)area);
}

// Patches x [N, tokens - 1, dim] with the class token before them and positions added, [N, tokens, dim].
extern "C" __global__ void with_class(const T* x, const float* cls, const float* positions, T* y, int tokens, int dim, i64 len) {
    i64 at = element();
    if (at >= len) return;
    i64 image = (i64)tokens * dim, within = at % image;
    float value = within < dim ? cls[within] : load(x[at / image * (image - dim) + within - dim]);
    store(y + at, value + positions[within]);
}

// Rows [N, tokens, dim] without the first of each image.
extern "C" __global__ void without_first(const T* x, T* y, int tokens, int dim, i64 len) {
    i64 at = element();
    if (at >= len) return;
    i64 image = (i64)(tokens - 1) * dim;
    store(y + at, load(x[at / image * tokens * dim + dim + at % image]));
}

// The first row of each image, and its way back.
extern "C" __global__ void first_row(const T* x, T* y, int tokens, int dim, i64 len) {
    i64 at = element();
    if (at < len) store(y + at, load(x[at / dim * tokens * dim + at % dim]));
}

extern "C" __global__ void first_row_backward(const T* g, T* dx, int tokens, int dim, i64 len) {
    i64 at = element();
    if (at >= len) return;
    i64 within = at % ((i64)tokens * dim);
    store(dx + at, within < dim ? load(g[at / ((i64)tokens * dim) * dim + within]) : 0.0f);
}
