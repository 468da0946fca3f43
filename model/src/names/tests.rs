use proptest::prelude::*;

use super::*;

const HEX: &str = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef";

#[test]
fn labels_say_what_is_allowed() {
    assert_eq!(ServiceName::new("web-7").unwrap().as_str(), "web-7");
    assert!(ServiceName::new("a".repeat(63)).is_ok());
    for bad in ["", "-web", "Web", "web_7", "wéb", "a.b", "../x", "a\n", &"a".repeat(64)] {
        let error = ServiceName::new(bad).unwrap_err();
        assert!(error.to_string().contains("a-z"), "{error}");
    }
    let long = SiteName::new("x".repeat(4000)).unwrap_err();
    assert_eq!(long.given.len(), 80, "an error must not repeat all that a stranger sent");
}

#[test]
fn labels_are_checked_when_read_from_the_wire() {
    assert_eq!(serde_json::from_str::<VolumeName>("\"data\"").unwrap().as_str(), "data");
    assert!(serde_json::from_str::<VolumeName>("\"../data\"").is_err());
    assert!(serde_json::from_str::<MigrationId>("\"7\"").is_err());
    assert!(serde_json::from_str::<Digest>("\"sha256:00\"").is_err());
}

#[test]
fn fingerprints_and_digests_are_hex() {
    let print: Fingerprint = HEX.parse().unwrap();
    assert_eq!(print.to_string(), HEX.to_lowercase());
    assert_eq!(print.short(), "01234567");
    let digest: Digest = format!("sha256:{HEX}").parse().unwrap();
    assert_eq!(digest.hex(), HEX.to_lowercase());
    assert!(HEX.parse::<Digest>().is_err(), "the algorithm is part of a digest");
    assert!("zz".repeat(32).parse::<Fingerprint>().is_err());
}

#[test]
fn bytes_read_and_print_like_people_write() {
    for (text, bytes) in
        [("0", 0), ("4096", 4096), ("512m", 512 << 20), ("1g", 1 << 30), ("1.5GiB", 3 << 29), ("1 KiB", 1024)]
    {
        assert_eq!(text.parse::<Bytes>().unwrap(), Bytes(bytes), "{text}");
    }
    for bad in ["", "m", "-1", "1.", ".5g", "1.5", "1x", "99999999999t", "1.2.3g", "1e3", "0.0000000001g"] {
        assert!(bad.parse::<Bytes>().is_err(), "{bad}");
    }
    assert_eq!(Bytes::gib(1).to_string(), "1.0 GiB");
    assert_eq!(Bytes(1023).to_string(), "1023 B");
    assert_eq!(Bytes(100).plus_percent(10), Bytes(110));
    assert_eq!(Bytes(u64::MAX).plus_percent(10), Bytes(u64::MAX));
}

#[test]
fn epochs_only_grow() {
    assert_eq!(Epoch::ZERO.next(), Epoch(1));
    assert_eq!(Epoch(u64::MAX).next(), Epoch(u64::MAX));
}

proptest! {
    #[test]
    fn parsing_never_panics(text in "\\PC*") {
        let _ = ServiceName::new(text.clone());
        let _ = text.parse::<Bytes>();
        let _ = text.parse::<Digest>();
        let _ = text.parse::<Fingerprint>();
        let _ = text.parse::<MigrationId>();
        let _ = text.parse::<Epoch>();
    }

    #[test]
    fn sizes_never_panic(text in "[0-9.]{0,30} ?[kmgtKMGTib]{0,4}") {
        let _ = text.parse::<Bytes>();
    }

    #[test]
    fn valid_labels_round_trip(text in "[a-z0-9][a-z0-9-]{0,62}") {
        let name: ServiceName = text.parse().unwrap();
        prop_assert_eq!(name.to_string(), text);
        let json = serde_json::to_string(&name).unwrap();
        prop_assert_eq!(serde_json::from_str::<ServiceName>(&json).unwrap(), name);
    }

    #[test]
    fn hashes_round_trip(raw in any::<[u8; 32]>(), id in any::<u128>()) {
        prop_assert_eq!(Fingerprint(raw).to_string().parse::<Fingerprint>().unwrap(), Fingerprint(raw));
        let digest = Digest::sha256(raw);
        prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        let id = MigrationId::new(uuid::Uuid::from_u128(id));
        prop_assert_eq!(id.to_string().parse::<MigrationId>().unwrap(), id);
    }

    #[test]
    fn printed_sizes_can_be_read_again(n in any::<u64>()) {
        // Rounded to a tenth of the unit when printed, so only close.
        let back = Bytes(n).to_string().parse::<Bytes>();
        if n < 1 << 50 {
            let back = back.unwrap().0 as f64;
            prop_assert!((back - n as f64).abs() <= n as f64 * 0.06 + 1.0);
        }
    }
}
