//! One model over several machines: llama.cpp's RPC backend, where this build has it (`GGML_RPC=ON` in the
//! environment of the build). Its devices are on loopback only: an SSH tunnel leads to the other machine.
//!
//! The servers are registered when llama.cpp starts, because its list of devices must not change while others read
//! it. One that breaks later ends the engine; its supervisor tells, and the next start does without the pool.

use crate::config::pool::{PoolConfig, local_address};
use llama_cpp_2::LlamaBackendDeviceType;
use std::ffi::{CStr, CString, c_char};
use std::path::Path;

/// What ggml calls the backend.
const BACKEND: &CStr = c"RPC";
const NOT_BUILT: &str = "this build has no RPC backend; build it with GGML_RPC=ON in the environment";

/// The pool of an engine.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// As configured.
    model: Option<String>,
    /// Why it can't be used, where it can't.
    trouble: Option<String>,
}

impl Pool {
    /// Connects to the servers. Call it once, after llama.cpp has started and before a model is loaded.
    #[must_use]
    pub fn open(config: &PoolConfig) -> Self {
        if config.is_off() {
            return Self::default();
        }
        let trouble = config.servers.iter().find_map(|server| add(server).err());
        if let Some(why) = &trouble {
            tracing::warn!(%why, "the pool can't be used");
        }
        Self { model: config.model.clone(), trouble }
    }

    /// Whether this file is the one that is spread.
    #[must_use]
    pub fn takes(&self, path: &Path) -> bool {
        let Some(model) = &self.model else { return false };
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_lowercase());
        path == Path::new(model) || stem.is_some_and(|stem| stem == model.to_lowercase())
    }

    /// Indexes of the devices a file goes to; none: whatever llama.cpp takes by itself.
    ///
    /// # Errors
    /// Two lines, when it is the model of the pool and a server is away.
    pub(super) fn devices(&self, path: &Path) -> Result<Option<Vec<usize>>, String> {
        if self.model.is_none() {
            return Ok(None);
        }
        let is_pooled = self.takes(path);
        if let Some(why) = self.trouble.as_ref().filter(|_| is_pooled) {
            return Err(format!("{why}, then run `tui engine stop`"));
        }
        let is_remote = |backend: &str| backend.as_bytes() == BACKEND.to_bytes();
        let all = llama_cpp_2::list_llama_ggml_backend_devices();
        // Those elsewhere first: what goes over the network then goes once.
        let (far, near): (Vec<_>, Vec<_>) = all
            .into_iter()
            .filter(|device| {
                matches!(
                    device.device_type,
                    LlamaBackendDeviceType::Gpu | LlamaBackendDeviceType::IntegratedGpu
                )
            })
            .partition(|device| is_remote(&device.backend));
        let far = far.into_iter().filter(|_| is_pooled);
        Ok(Some(far.chain(near).map(|device| device.index).collect()))
    }
}

type AddServer = unsafe extern "C" fn(*const c_char) -> llama_cpp_sys_2::ggml_backend_reg_t;
type StartServer = unsafe extern "C" fn(
    *const c_char,
    *const c_char,
    usize,
    usize,
    *mut llama_cpp_sys_2::ggml_backend_dev_t,
);

/// A function of the RPC backend, by the name llama.cpp's own tools ask for.
#[expect(unsafe_code, reason = "llama-cpp-2 has no wrapper for optional backends")]
fn function(name: &CStr) -> Option<std::ptr::NonNull<std::ffi::c_void>> {
    // SAFETY: both take NUL-terminated names and give null for what is not there; the registry is not changed meanwhile.
    let found = unsafe {
        let backend = llama_cpp_sys_2::ggml_backend_reg_by_name(BACKEND.as_ptr());
        if backend.is_null() {
            return None;
        }
        llama_cpp_sys_2::ggml_backend_reg_get_proc_address(backend, name.as_ptr())
    };
    std::ptr::NonNull::new(found)
}

/// Makes the devices of a server known to llama.cpp.
#[expect(unsafe_code, reason = "llama-cpp-2 has no wrapper for optional backends")]
fn add(server: &str) -> Result<(), String> {
    let address = local_address(server).map_err(|(what, next)| format!("{what}\n{next}"))?;
    let endpoint = CString::new(address.to_string()).map_err(|e| e.to_string())?;
    let add = function(c"ggml_backend_rpc_add_server").ok_or_else(|| NOT_BUILT.to_owned())?;
    // SAFETY: that name stands for a function of this type (ggml-rpc.h of the pinned version). It gives null when
    // the server does not answer, else something that lives as long as the process.
    let found =
        unsafe { std::mem::transmute::<*mut std::ffi::c_void, AddServer>(add.as_ptr())(endpoint.as_ptr()) };
    if found.is_null() {
        return Err(format!(
            "nothing of the pool answers at {server}\nstart `tui engine lend` there and the tunnel to it"
        ));
    }
    // SAFETY: `found` is a registry entry; called before other threads use the list.
    unsafe { llama_cpp_sys_2::ggml_backend_register(found) };
    Ok(())
}

/// Lends this machine's accelerators, or its CPU where it has none, to engines that reach this address; returns only
/// when that fails.
///
/// # Errors
/// Two lines: it is no address of this machine, in use, or this build has no such backend.
#[expect(unsafe_code, reason = "llama-cpp-2 has no wrapper for optional backends")]
pub fn lend(listen: &str, threads: usize) -> Result<std::convert::Infallible, String> {
    let address = local_address(listen).map_err(|(what, next)| format!("{what}\n{next}"))?;
    let llama = super::llama::Llama::start()?;
    let start = function(c"ggml_backend_rpc_start_server").ok_or_else(|| NOT_BUILT.to_owned())?;
    // It would say so on stderr only.
    drop(std::net::TcpListener::bind(address).map_err(|e| format!("{address} can't be listened on: {e}"))?);
    let endpoint = CString::new(address.to_string()).map_err(|e| e.to_string())?;
    let all = llama_cpp_2::list_llama_ggml_backend_devices();
    let is_card = |kind| matches!(kind, LlamaBackendDeviceType::Gpu | LlamaBackendDeviceType::IntegratedGpu);
    let has_card = all.iter().any(|device| is_card(device.device_type));
    let mut devices: Vec<_> = all
        .iter()
        .filter(|device| {
            if has_card {
                is_card(device.device_type)
            } else {
                device.device_type == LlamaBackendDeviceType::Cpu
            }
        })
        // SAFETY: the index comes from the list that was just read, and nothing changes it.
        .map(|device| unsafe { llama_cpp_sys_2::ggml_backend_dev_get(device.index) })
        .collect();
    // SAFETY: that name stands for a function of this type (ggml-rpc.h of the pinned version); all pointers outlive the
    // call. Without a folder for a cache it writes no files.
    unsafe {
        std::mem::transmute::<*mut std::ffi::c_void, StartServer>(start.as_ptr())(
            endpoint.as_ptr(),
            std::ptr::null(),
            threads,
            devices.len(),
            devices.as_mut_ptr(),
        );
    }
    drop(llama);
    Err(format!("{address} could not be served; what llama.cpp says of it is above"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_of_the_pool_is_known_by_id_and_by_path() {
        let pool = |model: &str| Pool { model: Some(model.to_owned()), trouble: None };
        let path = Path::new("/models/Llama-70B-Q4_K_M.gguf");
        assert!(pool("llama-70b-q4_k_m").takes(path) && pool("/models/Llama-70B-Q4_K_M.gguf").takes(path));
        assert!(!pool("llama-8b").takes(path) && !Pool::default().takes(path));
    }
}
