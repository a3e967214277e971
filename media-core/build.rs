//! Finds the system's libsrtp, and refuses one whose structures are not those of `src/srtp/ffi.rs`.

const LAYOUT: &str = "src/srtp/layout.c";

fn main() {
    println!("cargo:rerun-if-changed={LAYOUT}");
    // The crate `srtp2-sys` builds and links its own then, and `srtp/ffi.rs` is compared with its bindings.
    if std::env::var_os("CARGO_FEATURE_BUNDLED_LIBSRTP").is_some() {
        return;
    }
    let library = match pkg_config::Config::new().atleast_version("2.5.0").probe("libsrtp2") {
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
