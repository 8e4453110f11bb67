//! What a model would take on each device, measured by llama.cpp itself without allocating it.
//!
//! The model and its context are made in no-allocation mode, with the settings a real load has, and llama.cpp's
//! own breakdown is read (`breakdown.cpp`). A damaged file may end the process here, so this runs in the process
//! that tries model files ([`crate::engine::probe`]), and in the engine for the built-in model alone.

use super::allocated;
use super::footprint::{Footprint, Measured};
use crate::engine::llama::{Llama, LoadOptions, Settings};
use llama_cpp_sys_2 as sys;
use std::ffi::{CStr, CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The smaller of the two contexts that are measured, in tokens.
const SMALL_CONTEXT: u32 = 1024;
/// The most buffer types a context may have: a few per device.
const MAX_ROWS: usize = 64;

/// Measures a model with the context asked for and with a small one, on the accelerators as far as
/// `gpu_layers` says (none: all layers).
///
/// # Errors
/// One line, when llama.cpp makes no model or no context of it.
pub fn measure(
    llama: &Llama,
    path: &Path,
    options: LoadOptions,
    gpu_layers: Option<u32>,
) -> Result<Measured, String> {
    let small_context = SMALL_CONTEXT.min(options.context);
    let at = |context| run(llama, path, LoadOptions { context, ..options }, gpu_layers);
    let footprint = at(options.context)?;
    let small = if small_context == options.context { footprint.clone() } else { at(small_context)? };
    Ok(Measured { context: options.context, footprint, small_context, small })
}

/// Measures a projector whose tensors have `weights` bytes. llama.cpp sets its buffers up and does not read it.
///
/// # Errors
/// One line, when llama.cpp does not say.
#[cfg(feature = "mtmd")]
#[expect(unsafe_code, reason = "llama-cpp-2 has no wrapper for this call")]
pub fn measure_projector(
    file: &Path,
    params: &llama_cpp_2::mtmd::MtmdContextParams,
    weights: u64,
) -> Result<Footprint, String> {
    unsafe extern "C" {
        fn duet_projector_memory(
            file: *const c_char,
            params: *const sys::mtmd_context_params,
            size: u64,
            devices: *mut *const c_char,
            bytes: *mut u64,
            capacity: i32,
        ) -> i32;
    }
    let file =
        CString::new(file.as_os_str().as_bytes()).map_err(|_| "its path holds a zero byte".to_owned())?;
    let raw = sys::mtmd_context_params::from(params);
    let mut names = [std::ptr::null::<c_char>(); MAX_ROWS];
    let mut bytes = [0_u64; MAX_ROWS];
    let capacity = i32::try_from(MAX_ROWS).unwrap_or(0);
    // SAFETY: the text of `params` that `raw` points to lives until the end of this function, `file` too. The arrays
    // have the room that is passed.
    let rows = unsafe {
        let size = size_of::<sys::mtmd_context_params>() as u64;
        duet_projector_memory(file.as_ptr(), &raw, size, names.as_mut_ptr(), bytes.as_mut_ptr(), capacity)
    };
    let rows = usize::try_from(rows).map_err(|_| "llama.cpp does not say what it takes".to_owned())?;
    let mut out = Footprint::default();
    for (name, bytes) in names.iter().zip(bytes).take(rows) {
        let share = out.on_mut(&device_name(*name));
        share.compute = share.compute.saturating_add(bytes);
    }
    // The weights are all on one device: where the most is.
    if let Some(share) = out.shares.iter_mut().max_by_key(|share| share.compute) {
        share.weights = weights.min(share.compute);
        share.compute -= share.weights;
    }
    Ok(out)
}

/// The name of a device as llama.cpp gives it: none is main memory.
#[expect(unsafe_code, reason = "it is a name of C")]
fn device_name(name: *const c_char) -> String {
    if name.is_null() {
        return super::footprint::MAIN.to_owned();
    }
    // SAFETY: not null, so it is the name of a device: a constant string of its backend.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

#[expect(unsafe_code, reason = "the bindings hide what a context takes")]
fn run(
    llama: &Llama,
    path: &Path,
    options: LoadOptions,
    gpu_layers: Option<u32>,
) -> Result<Footprint, String> {
    unsafe extern "C" {
        fn duet_memory_breakdown(
            context: *const sys::llama_context,
            devices: *mut *const c_char,
            bytes: *mut u64,
            capacity: i32,
        ) -> i32;
    }
    let _one_at_a_time = llama.making_context();
    let file =
        CString::new(path.as_os_str().as_bytes()).map_err(|_| "its path holds a zero byte".to_owned())?;
    let (heard, _listening) = allocated::listen();
    let mut names = [std::ptr::null::<c_char>(); MAX_ROWS];
    let mut bytes = [0_u64; 3 * MAX_ROWS];
    // SAFETY: llama.cpp was started (`llama` shows it). The parameters are its defaults with plain numbers
    // changed; no pointer in them is ours. The model outlives its context, and both are freed on every way out.
    // The arrays have the room that is passed, `bytes` three times as much, as the function wants it.
    let rows = unsafe {
        let mut model_params = sys::llama_model_default_params();
        model_params.no_alloc = true;
        model_params.load_mode = sys::LLAMA_LOAD_MODE_NONE;
        if let Some(layers) = gpu_layers {
            model_params.n_gpu_layers = i32::try_from(layers).unwrap_or(i32::MAX);
        }
        let model = sys::llama_model_load_from_file(file.as_ptr(), model_params);
        if model.is_null() {
            return Err("llama.cpp makes no model of it".to_owned());
        }
        let mut context_params = sys::llama_context_default_params();
        let trained = u32::try_from(sys::llama_model_n_ctx_train(model)).unwrap_or(u32::MAX);
        Settings::new(options, trained).write(&mut context_params);
        let context = sys::llama_init_from_model(model, context_params);
        if context.is_null() {
            sys::llama_model_free(model);
            return Err(format!("llama.cpp makes no context of {} tokens for it", options.context));
        }
        let capacity = i32::try_from(MAX_ROWS).unwrap_or(0);
        let rows = duet_memory_breakdown(context, names.as_mut_ptr(), bytes.as_mut_ptr(), capacity);
        sys::llama_free(context);
        sys::llama_model_free(model);
        rows
    };
    let rows = usize::try_from(rows).map_err(|_| "llama.cpp does not say what it takes".to_owned())?;
    let mut out = Footprint::default();
    for (name, bytes) in names.iter().zip(bytes.as_chunks::<3>().0).take(rows) {
        let share = out.on_mut(&device_name(*name));
        let [weights, kv, compute] = *bytes;
        share.weights = share.weights.saturating_add(weights);
        share.kv = share.kv.saturating_add(kv);
        share.compute = share.compute.saturating_add(compute);
    }
    // Results are given out in a buffer that the breakdown leaves out and that is made all the same.
    let main = out.on_mut(super::footprint::MAIN);
    main.compute = main.compute.saturating_add(heard.output_bytes());
    Ok(out)
}
