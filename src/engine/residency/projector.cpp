// Bytes of a projector (mmproj) by device, measured without reading its weights. mtmd has a function for it, but in C++
// alone ("unstable API"), so it can't be called from Rust. Declared here as it is in mtmd.h; the version of
// llama-cpp-sys-2 is pinned exactly, and a test compares what comes out with the file.

#include <cstddef>
#include <cstdint>
#include <map>

struct ggml_backend_device;
typedef struct ggml_backend_device * ggml_backend_dev_t;
typedef bool (*mtmd_progress_callback)(float progress, void * user_data);
typedef bool (*ggml_backend_sched_eval_callback)(struct ggml_tensor * t, bool ask, void * user_data);

extern "C" {
const char * ggml_backend_dev_name(ggml_backend_dev_t device);
unsigned int ggml_backend_dev_type(ggml_backend_dev_t device);
}

struct mtmd_context_params {
    bool use_gpu;
    ggml_backend_dev_t device;
    bool print_timings;
    int n_threads;
    const char * image_marker;
    const char * media_marker;
    int flash_attn_type;
    bool warmup;
    int image_min_tokens;
    int image_max_tokens;
    ggml_backend_sched_eval_callback cb_eval;
    void * cb_eval_user_data;
    int32_t batch_max_tokens;
    mtmd_progress_callback progress_callback;
    void * progress_callback_user_data;
};

struct mtmd_memory_usage {
    std::map<ggml_backend_dev_t, size_t> backend_mem_usage;
    int image_max_tokens;
    bool use_non_causal;
};

struct mtmd_memory_usage mtmd_get_memory_usage(const char * mmproj_fname, struct mtmd_context_params ctx_params);

// One row per device (null: main memory) with its bytes. `size` is how long the caller's `params` are.
// Returns how many rows there are, or -1 when it can't be measured; writes `capacity` at most.
extern "C" int32_t duet_projector_memory(const char * file, const struct mtmd_context_params * params, uint64_t size,
                                         const char ** devices, uint64_t * bytes, int32_t capacity) {
    if (size != sizeof(struct mtmd_context_params)) {
        return -1;
    }
    try {
        int32_t n = 0;
        for (const auto & [device, used] : mtmd_get_memory_usage(file, *params).backend_mem_usage) {
            if (n < capacity) {
                // 1 and 2 are cards, with and without memory of their own.
                const unsigned int type = device == nullptr ? 0 : ggml_backend_dev_type(device);
                const bool is_card = type == 1 || type == 2;
                devices[n] = is_card ? ggml_backend_dev_name(device) : nullptr;
                bytes[n] = used;
            }
            n++;
        }
        return n == 0 ? -1 : n;
    } catch (...) {
        return -1;
    }
}
