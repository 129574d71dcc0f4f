#include "convolution.h"

#include <algorithm>
#include <cstring>

namespace bnn {

namespace {

// A step is the work of a kernel for one pair of words, 16 outputs and one pixel: five instructions with AVX-512, about
// two and a half cycles. A task has at least so many steps that it takes longer than handing it to a thread.
constexpr int64_t kStepsPerTask = 3000;
constexpr int64_t kMostTasks = 128;
constexpr int64_t kSignFloats = 1 << 15;   // number of floats whose signs one task packs
constexpr int64_t kWindowWords = 6144;     // 24 KiB: a task's windows stay in the L1 cache and fit on a thread's stack
constexpr int64_t kPlaneWords = 1 << 18;   // 1 MiB: the planes of the images in work stay in the L2 cache
constexpr int64_t kSharedWords = 1 << 20;  // 4 MiB: maximum for windows that several tasks share
constexpr int64_t kTile = 8;               // number of pixels that a kernel computes side by side
constexpr int64_t kOverrun = 16;           // number of words that a kernel may write behind the last window

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// One run. It processes a few images at a time, so many that their planes stay in the L2 cache. Their work is divided
// into tasks. A task computes a range of pixels (a chunk) of one image, for a range of blocks of outputs (a cut).
struct Run {
    const Convolution& convolution;
    const Tensors& tensors;
    Workspace& space;
    Scratch& scratch;
    int64_t first_image, images;  // the images in work
    int64_t chunk, chunks;        // number of pixels in a chunk, of chunks in an image
    int64_t cut, cuts;            // number of blocks in a cut, of cuts; above 1 only with one group of full blocks
    int64_t stride;               // number of words between the rows of the windows
    int64_t window_words;         // number of words of a chunk's windows
    bool shared;                  // a chunk's windows are gathered once for all its cuts
    bool local;                   // a chunk's windows fit on the stack
    std::atomic<bool> failed{false};  // a task found no memory for its windows

    const Layer& layer() const { return convolution.layer; }
    // Whether kernels write signs to masks first, because a block is partly empty (see bnn_job::masks).
    bool masked() const { return layer().group_outputs % kLanes != 0 && tensors.signs; }
};

// The functions ..._task run one task of a run; `data` is the run. This one copies an image to the planes.
void spread_task(void* data, size_t image) {
    const Run& run = *static_cast<const Run*>(data);
    const Tensors& t = run.tensors;
    const int64_t size = t.height * t.width * run.layer().input_bytes();
    run.space.plan.spread(run.layer(), t.input + (run.first_image + int64_t(image)) * size,
                          run.scratch.planes.get() + int64_t(image) * run.space.plan.plane_size);
}

// Gathers the windows of the pixels first <= pixel < last of an image, for one group of the convolution.
void gather(const Run& run, int64_t image, int64_t group, int64_t first, int64_t last, uint32_t* windows) {
    const Plan& plan = run.space.plan;
    const Layer& layer = run.layer();
    const uint32_t* planes = run.scratch.planes.get() + image * plan.plane_size + group * layer.planes * plan.word_size;
    for (int64_t pixel = first; pixel < last;) {
        const int64_t y = pixel / plan.out_width, x = pixel % plan.out_width;
        const int64_t count = std::min(plan.out_width - x, last - pixel);
        run.convolution.kernel->gather(planes + y * layer.attributes.strides[0] * plan.row_size + x,
                                       plan.offsets.data(), int64_t(plan.offsets.size()), count,
                                       windows + (pixel - first), run.stride);
        pixel += count;
    }
}

// Gathers the windows of a chunk, for all its cuts.
void gather_task(void* data, size_t task) {
    const Run& run = *static_cast<const Run*>(data);
    const int64_t image = int64_t(task) / run.chunks, first = int64_t(task) % run.chunks * run.chunk;
    gather(run, image, 0, first, std::min(first + run.chunk, run.space.plan.pixels),
           run.scratch.windows.get() + int64_t(task) * run.window_words);
}

// Packs the signs of a pixel's outputs together, from masks with 16 bits for each block.
void join_masks(const Layer& layer, const uint16_t* masks, uint8_t* signs) {
    std::memset(signs, 0, size_t(layer.output_bytes()));
    for (int64_t o = 0; o < layer.outputs; ++o) {
        const int64_t lane = layer.lane(o);
        const unsigned bit = masks[lane / kLanes] >> (lane % kLanes) & 1u;
        signs[o / 8] = uint8_t(signs[o / 8] | bit << (o % 8));
    }
}

// Computes a chunk of pixels for a cut of the blocks. windows: a buffer for the chunk's windows.
void compute_windows(const Run& run, size_t task, uint32_t* windows) {
    const Layer& layer = run.layer();
    const Plan& plan = run.space.plan;
    const Tensors& t = run.tensors;
    const Epilogue& e = layer.epilogue;
    const int64_t place = int64_t(task) / run.cuts, first_block = int64_t(task) % run.cuts * run.cut;
    const int64_t image = place / run.chunks, first = place % run.chunks * run.chunk;
    const int64_t last = std::min(first + run.chunk, plan.pixels);
    const int64_t pixel = (run.first_image + image) * plan.pixels + first;

    if (run.shared) windows = run.scratch.windows.get() + place * run.window_words;
    uint16_t* const masks = run.masked() ? run.space.masks.get() + place * run.space.mask_count : nullptr;

    bnn_job job = {};
    job.windows = windows;
    job.window_stride = run.stride;
    job.pairs = layer.pairs;
    job.pixels = last - first;
    job.table_offsets = plan.table_offsets.data() + first;
    job.stride = layer.outputs;
    job.sign_stride = layer.output_bytes();
    job.mask_stride = layer.attributes.group * layer.blocks;
    job.kind = int(e.kind);
    job.add = e.add, job.clip = e.clip, job.rprelu = e.rprelu, job.sign = e.sign;
    job.low = e.low, job.high = e.high;
    for (int64_t group = 0; group < layer.attributes.group; ++group) {
        if (!run.shared) gather(run, image, group, first, last, windows);
        const int64_t block = group * layer.blocks + first_block, lane = block * kLanes;
        const int64_t output = group * layer.group_outputs + first_block * kLanes, at = pixel * layer.outputs + output;
        job.weights = layer.weights.get() + block * layer.pairs * 2 * kLanes;
        job.blocks = std::min(run.cut, layer.blocks - first_block);
        job.outputs = layer.group_outputs - first_block * kLanes;
        job.table = plan.table.get() + lane;
        job.scale = layer.scale.get() + lane;
        job.bias = layer.bias.get() + lane;
        job.before = layer.before.get() + lane, job.slope = layer.slope.get() + lane;
        job.after = layer.after.get() + lane, job.level = layer.level.get() + lane;
        job.residual = t.residual ? t.residual + at : nullptr;
        job.y = t.y ? t.y + at : nullptr;
        job.raw = t.raw ? t.raw + at : nullptr;
        job.masks = masks ? masks + block : nullptr;
        job.signs = t.signs && !masks ? t.signs + pixel * layer.output_bytes() + output / 8 : nullptr;
        run.convolution.kernel->compute(&job);
    }
    for (int64_t p = 0; masks && p < last - first; ++p) {
        join_masks(layer, masks + p * job.mask_stride, t.signs + (pixel + p) * layer.output_bytes());
    }
}

// Finds a buffer for a task's windows and computes the task.
void compute_task(void* data, size_t task) {
    Run& run = *static_cast<Run*>(data);
    if (run.shared || run.local) {
        alignas(64) uint32_t here[kWindowWords];
        return compute_windows(run, task, here);
    }
    try {  // no exception may reach onnxruntime's threads
        Aligned<uint32_t> buffer = run.space.slots.take();
        compute_windows(run, task, buffer.get());
        run.space.slots.give(std::move(buffer));
    } catch (...) {
        run.failed = true;
    }
}

// Returns the number of pixels of a chunk: as many as have windows that fit on the stack, or fewer, if there would be
// too few tasks. Chunks are whole rows if a row fills whole registers: then no register is stored across two cache
// lines.
int64_t chunk_of(const Layer& layer, const Plan& plan, int64_t images, int64_t tasks) {
    const int64_t fit = kWindowWords / (2 * layer.pairs) - kOverrun, width = plan.out_width;
    const int64_t unit = width % kLanes == 0 && width <= fit ? width : fit >= kLanes ? kLanes : kTile;
    return std::max(unit, std::min(fit / unit * unit, ceil_div(images * plan.pixels, tasks * unit) * unit));
}

struct PortableRun {
    const Layer& layer;
    const Tensors& tensors;
    int64_t out_height, out_width;
};

void portable_task(void* data, size_t row) {
    const PortableRun& run = *static_cast<const PortableRun*>(data);
    portable(run.layer, run.tensors, run.out_height, run.out_width, int64_t(row), int64_t(row) + 1);
}

struct SignRun {
    const bnn_kernel* kernel;
    const float *x, *level;
    uint8_t* bytes;
    int64_t pixels, channels, per_task;
};

void sign_task(void* data, size_t index) {
    const SignRun& run = *static_cast<const SignRun*>(data);
    const int64_t first = int64_t(index) * run.per_task, count = std::min(run.per_task, run.pixels - first);
    const float* const x = run.x + first * run.channels;
    uint8_t* const bytes = run.bytes + first * ceil_div(run.channels, 8);
    if (!run.kernel || run.channels % 8) {
        portable_signs(x, run.level, count, run.channels, bytes);
    } else if (!run.level) {
        run.kernel->signs(x, count * run.channels / 8, bytes);
    } else {
        run.kernel->level_signs(x, run.level, count, run.channels / 8, bytes);
    }
}

// Returns the layer with its weights as this kernel reads them.
Layer prepared(Layer layer, const bnn_kernel* kernel) {
    if (kernel && kernel->prefixes) layer.prefix();
    return layer;
}

// Runs the tasks 0 .. count - 1, on the pool or, if not `parallel`, in this thread.
void all(const Pool& pool, void (*task)(void*, size_t), int64_t count, void* data, bool parallel) {
    if (parallel && count > 1) {
        pool.run(pool.self, task, size_t(count), data);
    } else {
        for (int64_t i = 0; i < count; ++i) task(data, size_t(i));
    }
}

}  // namespace

Aligned<uint32_t> Slots::take() {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!idle_.empty()) {
            Aligned<uint32_t> buffer = std::move(idle_.back());
            idle_.pop_back();
            return buffer;
        }
    }
    return Aligned<uint32_t>(words_);
}

void Slots::give(Aligned<uint32_t> buffer) {
    const std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(std::move(buffer));
}

Convolution::Convolution(Layer constants, const bnn_kernel* which)
    : layer(prepared(std::move(constants), which)), kernel(which) {}

Convolution::~Convolution() { delete idle.load(); }

void Convolution::run(const Tensors& tensors, const Pool& pool) const {
    std::unique_ptr<Buffers> buffers(idle.exchange(nullptr));
    if (!buffers) buffers.reset(new Buffers);
    run(tensors, pool, buffers->space, buffers->scratch);
    delete idle.exchange(buffers.release());
}

void Convolution::run(const Tensors& tensors, const Pool& pool, Workspace& space, Scratch& scratch) const {
    if (tensors.images < 1) return;
    if (!kernel) {
        const int64_t height = output_size(layer.attributes, 0, tensors.height);
        PortableRun run{layer, tensors, height, output_size(layer.attributes, 1, tensors.width)};
        all(pool, portable_task, tensors.images * height, &run, true);
        return;
    }
    if (space.plan.height != tensors.height || space.plan.width != tensors.width) {
        space = Workspace();
        scratch.bordered = nullptr;
        space.plan = Plan(layer, tensors.height, tensors.width);
    }
    const Plan& plan = space.plan;

    Run run{*this, tensors, space, scratch, 0, 0, 0, 0, layer.blocks, 1, 0, 0, false, false, {false}};
    const int64_t held = std::min(tensors.images, std::max<int64_t>(1, kPlaneWords / plan.plane_size));
    if (held * plan.plane_size > scratch.plane_words) {
        scratch.bordered = nullptr;
        scratch.planes = Aligned<uint32_t>(held * plan.plane_size);
        scratch.plane_words = held * plan.plane_size;
    }
    if (scratch.bordered != &plan || scratch.images < held) {
        for (int64_t i = 0; i < held; ++i) plan.clear(layer, scratch.planes.get() + i * plan.plane_size);
        scratch.bordered = &plan;
        scratch.images = held;
    }
    const int64_t steps = held * plan.pixels * layer.pairs * layer.blocks * layer.attributes.group;
    const int64_t tasks = pool.single ? 1 : std::max<int64_t>(1, std::min(kMostTasks, steps / kStepsPerTask));
    run.chunk = chunk_of(layer, plan, held, tasks);
    run.chunks = ceil_div(plan.pixels, run.chunk);
    if (layer.attributes.group == 1 && layer.group_outputs % kLanes == 0 && held * run.chunks < tasks) {
        run.cut = std::max<int64_t>(2, ceil_div(layer.blocks, ceil_div(tasks, held * run.chunks)));
        run.cuts = ceil_div(layer.blocks, run.cut);
    }
    run.stride = run.chunk + kOverrun;
    run.window_words = 2 * layer.pairs * run.stride;
    run.local = run.window_words <= kWindowWords;
    const int64_t places = held * run.chunks;
    run.shared = run.cuts > 1 && places <= kSharedWords / run.window_words;
    if (!run.shared && !run.local) space.slots.resize(run.window_words);
    if (run.shared && places * run.window_words > scratch.window_words) {
        scratch.windows = Aligned<uint32_t>(places * run.window_words);
        scratch.window_words = places * run.window_words;
    }
    if (run.masked()) {
        const int64_t count = run.chunk * layer.attributes.group * layer.blocks;
        if (space.mask_count != count || space.mask_places < places) {
            space.masks = Aligned<uint16_t>(places * count);
            space.mask_count = count;
            space.mask_places = places;
        }
    }

    for (int64_t first = 0; first < tensors.images; first += held) {
        run.first_image = first;
        run.images = std::min(held, tensors.images - first);
        all(pool, spread_task, run.images, &run, run.images * plan.plane_size > kPlaneWords / 8);
        if (run.shared) all(pool, gather_task, run.images * run.chunks, &run, false);
        all(pool, compute_task, run.images * run.chunks * run.cuts, &run, tasks > 1);
        if (run.failed) throw std::bad_alloc();
    }
}

void pack_signs(const bnn_kernel* kernel, const float* x, const float* level, int64_t pixels, int64_t channels,
                uint8_t* bytes, const Pool& pool) {
    const int64_t per_task = std::max<int64_t>(1, kSignFloats / std::max<int64_t>(1, channels));
    SignRun run{kernel, x, level, bytes, pixels, channels, per_task};
    all(pool, sign_task, ceil_div(pixels, run.per_task), &run, !pool.single);
}

}  // namespace bnn
