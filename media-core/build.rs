//! Refuses a system whose libsrtp has other structures than `src/srtp/ffi.rs`; `srtp2-sys` links it.

const LAYOUT: &str = "src/srtp/layout.c";

fn main() {
    println!("cargo:rerun-if-changed={LAYOUT}");
    // `srtp2-sys` builds its own then, which is the one that its bindings are of.
    if std::env::var_os("CARGO_FEATURE_BUNDLED_LIBSRTP").is_some() {
        return;
    }
    let library = match pkg_config::Config::new().atleast_version("2.5.0").cargo_metadata(false).probe("libsrtp2") {
        Ok(library) => library,
        Err(error) => panic!(
            "{error}\n\nSluice needs libsrtp 2.5 or later: on Debian and Ubuntu `apt-get install libsrtp2-dev`. \
             `--features bundled-libsrtp` builds an old one instead."
        ),
    };
    // Compiled for its assertions; nothing of it is linked.
    cc::Build::new()
        .file(LAYOUT)
        .includes(&library.include_paths)
        .cargo_metadata(false)
        .warnings_into_errors(true)
        .compile("srtp_layout");
}
