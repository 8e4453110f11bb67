//! Ends the evaluation of a batch before it is done. Between two operations of a batch ggml asks, on the thread that
//! evaluates, whether to go on; what was written of the batch does not count then and has to be taken back.
//!
//! Operations on the CPU are asked for, those on other devices may not be.

use llama_cpp_2::DecodeError;
use llama_cpp_2::context::params::LlamaContextParams;
use std::cell::{Cell, RefCell};
use std::ffi::c_void;

/// What llama.cpp says of a batch that was ended.
const ABORTED: i32 = 2;

type Stop = Box<dyn Fn() -> bool>;

thread_local! {
    /// Whether there is somebody to ask: the way of nearly every batch, which costs nothing more.
    static IS_ARMED: Cell<bool> = const { Cell::new(false) };
    static STOP: RefCell<Option<Stop>> = const { RefCell::new(None) };
}

/// Has contexts made with these settings ask. Without [`with`] the answer is always to go on.
#[expect(unsafe_code, reason = "llama-cpp-2 has no setter for the callback")]
#[must_use]
pub(super) fn fitted(mut params: LlamaContextParams) -> LlamaContextParams {
    type Raw = llama_cpp_sys_2::llama_context_params;
    const {
        assert!(size_of::<LlamaContextParams>() == size_of::<Raw>());
        assert!(align_of::<LlamaContextParams>() == align_of::<Raw>());
    }
    // SAFETY: in the version that is pinned the type holds one `Raw`, and by the sizes nothing else, so that this is at
    // its beginning; a test reads through the same cast what a setter wrote. A function is all that is written,
    // one that lives as long as the program and takes no data.
    unsafe { (*std::ptr::from_mut(&mut params).cast::<Raw>()).abort_callback = Some(ask) };
    params
}

/// Does `work` on this thread. While it evaluates a batch, `stop` is asked between operations whether to end it.
pub(super) fn with<T>(stop: impl Fn() -> bool + 'static, work: impl FnOnce() -> T) -> T {
    struct Armed;
    impl Drop for Armed {
        fn drop(&mut self) {
            IS_ARMED.set(false);
            STOP.set(None);
        }
    }
    STOP.set(Some(Box::new(stop)));
    IS_ARMED.set(true);
    let _armed = Armed;
    work()
}

/// Whether this is how a batch ends that was stopped.
#[must_use]
pub(super) fn was_stopped(error: &DecodeError) -> bool {
    *error == DecodeError::Unknown(ABORTED)
}

/// Called by ggml: `true` ends the batch.
#[expect(unsafe_code, reason = "the type of a callback of ggml")]
unsafe extern "C" fn ask(_: *mut c_void) -> bool {
    IS_ARMED.get() && STOP.with_borrow(|stop| stop.as_ref().is_some_and(|stop| stop()))
}

#[cfg(test)]
mod tests {
    use super::super::llama::{Llama, LoadOptions, Purpose, Storage};
    use super::super::residency::offload::Offload;
    use super::*;
    use llama_cpp_2::context::LlamaContext;
    use llama_cpp_2::llama_batch::LlamaBatch;
    use llama_cpp_2::token::LlamaToken;
    use std::num::NonZeroU32;
    use std::path::Path;
    use std::rc::Rc;

    #[test]
    #[expect(unsafe_code, reason = "looks through the cast of `fitted`")]
    fn the_callback_is_written_beside_what_the_setters_write() {
        let params = LlamaContextParams::default().with_n_ctx(NonZeroU32::new(777)).with_n_threads(3);
        let params = fitted(params);
        assert_eq!((params.n_ctx(), params.n_threads()), (NonZeroU32::new(777), 3));
        // SAFETY: as in `fitted`.
        let raw = unsafe { &*std::ptr::from_ref(&params).cast::<llama_cpp_sys_2::llama_context_params>() };
        assert_eq!((raw.n_ctx, raw.n_threads), (777, 3));
        assert!(raw.abort_callback.is_some() && raw.abort_callback_data.is_null());
    }

    fn batch(tokens: usize) -> LlamaBatch<'static> {
        let mut batch = LlamaBatch::new(tokens, 1);
        for i in 0..tokens {
            let position = i32::try_from(i).unwrap();
            batch.add(LlamaToken::new(300 + position % 50), position, &[0], i + 1 == tokens).unwrap();
        }
        batch
    }

    fn logits(context: &mut LlamaContext<'_>, tokens: usize) -> Vec<f32> {
        context.decode(&mut batch(tokens)).unwrap();
        context.get_logits_ith(i32::try_from(tokens).unwrap() - 1).to_vec()
    }

    #[test]
    fn a_batch_ends_when_it_is_told_to_and_leaves_nothing() {
        let llama = super::super::model_thread::tests::llama();
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/builtin.gguf");
        let options = LoadOptions { context: 512, slots: 1, threads: 1, purpose: Purpose::Text };
        let model = llama.load(&path, Storage::Mapped, &Offload::All, options, |_| true).unwrap();
        let mut context = Llama::context(&llama, &model, options).unwrap();
        let whole = logits(&mut context, 200);
        context.clear_kv_cache();

        let asked = Rc::new(Cell::new(0_u32));
        let count = |last: u32| {
            let asked = Rc::clone(&asked);
            move || {
                asked.set(asked.get() + 1);
                asked.get() >= last
            }
        };
        with(count(u32::MAX), || context.decode(&mut batch(200))).unwrap();
        let operations = asked.replace(0);
        assert!(operations > 50, "{operations} operations");
        context.clear_kv_cache();

        for last in [1, operations / 2, operations - 1] {
            let ended = with(count(last), || context.decode(&mut batch(200)));
            assert!(ended.is_err_and(|error| was_stopped(&error)));
            assert_eq!(asked.replace(0), last, "nothing was computed after that");
            assert_eq!(context.kv_cache_seq_pos_max(0), -1, "nothing of it is in the cache");
        }
        assert_eq!(logits(&mut context, 200), whole, "the next one is as if nothing had been");
        assert_eq!(asked.get(), 0, "nobody is asked any more");
    }
}
