// Bytes of a context by buffer type. llama.cpp has a function for it, but in C++ alone (src/llama-ext.h, "staging
// API"), so it can't be called from Rust. Declared here as it is there; the version of llama-cpp-sys-2 is pinned
// exactly, and a test compares what comes out with what a load allocates.

#include <cstddef>
#include <cstdint>
#include <map>

struct llama_context;
struct ggml_backend_buffer_type;
struct ggml_backend_device;
typedef struct ggml_backend_buffer_type * ggml_backend_buffer_type_t;
typedef struct ggml_backend_device * ggml_backend_dev_t;

extern "C" {
bool ggml_backend_buft_is_host(ggml_backend_buffer_type_t buft);
ggml_backend_dev_t ggml_backend_buft_get_device(ggml_backend_buffer_type_t buft);
const char * ggml_backend_dev_name(ggml_backend_dev_t device);
}

struct llama_memory_breakdown_data {
    size_t model   = 0;
    size_t context = 0;
    size_t compute = 0;
};

std::map<ggml_backend_buffer_type_t, llama_memory_breakdown_data> llama_get_memory_breakdown(const struct llama_context * ctx);

// One row per buffer type: the device's name (null: main memory; it lives as long as the device) and bytes of
// weights, cache and scratch. Returns how many rows there are, or -1 after an exception; writes `capacity` at most.
extern "C" int32_t duet_memory_breakdown(const struct llama_context * ctx, const char ** devices, uint64_t * bytes, int32_t capacity) {
    try {
        int32_t n = 0;
        for (const auto & [buft, data] : llama_get_memory_breakdown(ctx)) {
            if (n < capacity) {
                const bool is_host = ggml_backend_buft_is_host(buft);
                const ggml_backend_dev_t device = is_host ? nullptr : ggml_backend_buft_get_device(buft);
                devices[n] = device == nullptr ? nullptr : ggml_backend_dev_name(device);
                bytes[3 * n + 0] = data.model;
                bytes[3 * n + 1] = data.context;
                bytes[3 * n + 2] = data.compute;
            }
            n++;
        }
        return n;
    } catch (...) {
        return -1;
    }
}
