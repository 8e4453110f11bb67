//! ggml's backends as libraries (feature `portable`): one program for machines with and without a card, and for every
//! CPU. They lie in a folder `backends` beside the program, or in `../lib/duet/backends`; nowhere else is looked, because
//! a library that is loaded is code that runs.

use llama_cpp_2::llama_backend::load_backends_from_path;
use std::path::{Path, PathBuf};

/// Loads the best backend of each kind for this machine.
///
/// # Errors
/// One line, when there is no folder or nothing of use in it.
pub(super) fn load() -> Result<(), String> {
    let program = std::env::current_exe().map_err(|e| format!("cannot find this program: {e}"))?;
    let Some(folder) = places(&program).into_iter().find(|folder| folder.is_dir()) else {
        // A build that was not put together yet has them where they were made.
        #[cfg(debug_assertions)]
        llama_cpp_2::llama_backend::load_backends();
        return found(&program);
    };
    // llama.cpp takes text without a zero byte.
    if folder.to_str().is_none_or(|text| text.contains('\0')) {
        return Err(format!("{} has a name that is no text; put the program elsewhere", folder.display()));
    }
    load_backends_from_path(&folder);
    found(&program)
}

fn places(program: &Path) -> Vec<PathBuf> {
    let beside = program.parent().map(|folder| folder.join("backends"));
    let above = program.parent().and_then(Path::parent).map(|folder| folder.join("lib/duet/backends"));
    beside.into_iter().chain(above).collect()
}

fn found(program: &Path) -> Result<(), String> {
    if !llama_cpp_2::list_llama_ggml_backend_devices().is_empty() {
        return Ok(());
    }
    let places: Vec<String> = places(program).iter().map(|folder| folder.display().to_string()).collect();
    Err(format!(
        "no library of ggml's backends that runs here; put the folder `backends` that came with the program at {}",
        places.join(" or ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn libraries_are_looked_for_beside_the_program_only() {
        let at = places(Path::new("/opt/duet/bin/tui"));
        assert_eq!(
            at,
            [PathBuf::from("/opt/duet/bin/backends"), PathBuf::from("/opt/duet/lib/duet/backends")]
        );
    }
}
