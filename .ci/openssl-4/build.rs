//! Builds OpenSSL from the sources that the crate `openssl-src` has.

fn main() {
    let built = openssl_src::Build::new().build();
    let folder = built.lib_dir().parent().expect("the library has a folder of its own");
    println!("cargo:rustc-env=OPENSSL_DIR={}", folder.display());
    println!("cargo:rerun-if-changed=build.rs");
}
