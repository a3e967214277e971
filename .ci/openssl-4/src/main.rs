//! Says where the build script has put OpenSSL: what OPENSSL_DIR has to be for openssl-sys to link it.

fn main() {
    println!("{}", env!("OPENSSL_DIR"));
}
