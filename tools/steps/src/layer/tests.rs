//! What belongs to which layer, by example.

use super::*;

fn frame(function: &str, file: &str, line: u32) -> Frame {
    Frame {
        function: function.into(),
        file: file.into(),
        line,
    }
}

const CORE: &str = "/rustc/59807616e1/library/core/src/slice/index.rs";
const REGISTRY: &str = "/cargo/registry/src/index.crates.io-1949cf8c6b5b557f";

#[test]
fn inlined_library_code_belongs_to_the_engine_around_it() {
    let frames = [
        frame("core::slice::index::get", CORE, 7),
        frame(
            "smallvec::SmallVec<A>::push",
            &format!("{REGISTRY}/smallvec-1.16.5/src/lib.rs"),
            9,
        ),
        frame(
            "corelane::conn::fill::write_ack",
            "/code/corelane/src/conn/fill.rs",
            104,
        ),
        frame(
            "corelane::conn::train::poll",
            "/code/corelane/src/conn/train.rs",
            5,
        ),
    ];
    let place = Place {
        layer: Layer::Conn,
        function: "conn::fill::write_ack".into(),
        line: "conn/fill.rs:104".into(),
    };
    assert_eq!(judge(&frames), Spot::Here(place));
}

#[test]
fn every_directory_of_the_engine_has_a_layer() {
    let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src");
    for entry in std::fs::read_dir(src).expect("the engine's sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            let file = path.join("mod.rs");
            let layer = Layer::of_file(&file.to_string_lossy());
            let Some(layer) = layer else {
                panic!("{} is of no layer", path.display());
            };
            assert!(layer.is_engine() || layer == Layer::App, "{layer}");
        }
    }
}

#[test]
fn an_embedder_is_not_the_engine() {
    for file in [
        "/code/corelane/perf/src/stream/x.rs",
        "/code/corelane/tests/common/bulk.rs",
    ] {
        assert_eq!(Layer::of_file(file), Some(Layer::App), "{file}");
    }
    assert_eq!(
        Layer::of_file(&format!("{REGISTRY}/quinn-0.11/src/stream/x.rs")),
        None
    );
    assert_eq!(Layer::of_file(CORE), None);
}

#[test]
fn packet_protection_is_told_from_header_protection() {
    let layer = |function: &str, file: &str| match judge(&[frame(function, file, 1)]) {
        Spot::Here(place) => Some(place.layer),
        _ => None,
    };
    let quic = format!("{REGISTRY}/rustls-0.23.46/src/crypto/ring/quic.rs");
    let header = "<rustls::crypto::ring::quic::HeaderProtectionKey as \
        rustls::quic::HeaderProtectionKey>::encrypt_in_place";
    assert_eq!(layer(header, &quic), Some(Layer::HeaderProtection));
    let packet =
        "<rustls::crypto::ring::quic::PacketKey as rustls::quic::PacketKey>::encrypt_in_place";
    assert_eq!(layer(packet, &quic), Some(Layer::Aead));
    assert_eq!(
        layer("ring::aead::quic::HeaderProtectionKey::new_mask", ""),
        Some(Layer::HeaderProtection)
    );
    let file = format!("{REGISTRY}/ring-0.17.14/pregenerated/aes-gcm-avx2-x86_64-elf.S");
    let gcm = "ring_core_0_17_14__aes_gcm_enc_update_vaes_avx2";
    assert_eq!(layer(gcm, &file), Some(Layer::Aead));
    // Masks and nonces use the same routine.
    let block = frame("ring_core_0_17_14__aes_hw_ctr32_encrypt_blocks", &file, 1);
    assert_eq!(
        judge(std::slice::from_ref(&block)),
        Spot::Cipher(block.function)
    );
}

#[test]
fn what_a_library_keeps_inside_is_known_without_its_name() {
    let layer = |function: &str, file: &str| match judge(&[frame(function, file, 1)]) {
        Spot::Here(place) => Some(place.layer),
        _ => None,
    };
    let file = "/aws-lc/crypto/fipsmodule/cipher/e_aes.c";
    for name in [
        "aead_aes_gcm_seal_scatter",
        "aead_aes_gcm_open_gather_impl",
        "aws_lc_0_47_0_EVP_AEAD_CTX_seal_scatter",
        "gcm_init_avx512",
        "chacha20_poly1305_seal_scatter",
    ] {
        assert_eq!(layer(name, file), Some(Layer::Aead), "{name}");
        assert_eq!(layer(name, ""), Some(Layer::Aead), "{name}");
    }
    let inlined = [
        frame("CRYPTO_xor16", file, 1),
        frame("aead_aes_gcm_init_impl", file, 2),
    ];
    let layer = |frames: &[Frame]| match judge(frames) {
        Spot::Here(place) => Some(place.layer),
        _ => None,
    };
    assert_eq!(layer(&inlined), Some(Layer::Aead));
    // Of whoever called it, and never of the engine: `settle` makes TLS of that.
    let jitter =
        "/aws-lc/third_party/jitterentropy/jitterentropy-library/src/jitterentropy-noise.c";
    for name in ["jent_measure_jitter", "tree_jitter_get_seed", "rol64"] {
        assert_eq!(judge(&[frame(name, jitter, 1)]), Spot::Cipher(name.into()));
        assert_eq!(alone(name), Layer::Tls);
    }
    assert_eq!(
        judge(&[frame("rol64", "/other/src/x.c", 1)]),
        Spot::Callers("rol64".into())
    );
    assert_eq!(alone("aes_hw_ctr32_encrypt_blocks"), Layer::Aead);
    assert_eq!(alone("aws_lc_0_47_0_CRYPTO_memcmp"), Layer::Aead);
    assert_eq!(alone("rustls::conn::ConnectionCore::process"), Layer::Tls);
}

#[test]
fn the_c_library_is_known_by_name() {
    let layer = |name| match judge_symbol(name) {
        Spot::Here(place) => Some(place.layer),
        _ => None,
    };
    assert_eq!(
        layer("__memmove_avx512_unaligned_erms"),
        Some(Layer::Memcpy)
    );
    assert_eq!(layer("_int_free"), Some(Layer::Alloc));
    assert_eq!(layer("cfree"), None);
    assert_eq!(layer("core::fmt::write"), None);
}

#[test]
fn names_lose_what_only_compilers_need() {
    assert_eq!(
        short("corelane::conn::x::f::h0123456789abcdef"),
        "conn::x::f"
    );
    assert_eq!(
        short("corelane::stream::map::Map<T,S>::get"),
        "stream::map::Map::get"
    );
    assert_eq!(
        short("<corelane::conn::A as corelane::wire::B<T>>::f"),
        "<conn::A as wire::B>::f"
    );
    assert_eq!(
        short("corelane::conn::train::<impl corelane::conn::Connection>::f"),
        "conn::train::f"
    );
}

#[test]
fn names_of_layers_are_read_back() {
    for layer in Layer::ALL {
        assert_eq!(Layer::named(layer.name()), Some(layer));
    }
    assert_eq!(Layer::named("nothing"), None);
}
