//! Compiles the few lines of C++ that read a context's and a projector's memory out of llama.cpp.

fn main() {
    println!("cargo:rerun-if-changed=src/engine/residency/breakdown.cpp");
    println!("cargo:rerun-if-changed=src/engine/residency/projector.cpp");
    if std::env::var_os("CARGO_FEATURE_LOCAL").is_some() {
        let mut build = cc::Build::new();
        if std::env::var_os("CARGO_FEATURE_MTMD").is_some() {
            build.file("src/engine/residency/projector.cpp");
        }
        build
            .cpp(true)
            .std("c++17")
            .file("src/engine/residency/breakdown.cpp")
            // llama.cpp's own crate links the standard library, the way its features say.
            .cpp_link_stdlib(None)
            .compile("duet_breakdown");
    }
}
