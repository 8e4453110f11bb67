//! Numbers in the sentences the router says.

/// A time given in milliseconds: `0.42 s`, `2.1 s`, `24 s`, `3 min 20 s`.
pub(super) fn seconds(ms: f64) -> String {
    let s = if ms.is_finite() { ms.max(0.0) / 1000.0 } else { 0.0 };
    if s < 0.995 {
        format!("{s:.2} s")
    } else if s < 9.95 {
        format!("{s:.1} s")
    } else if s < 99.5 {
        format!("{s:.0} s")
    } else {
        let minutes = (s / 60.0).floor();
        format!("{minutes:.0} min {:02.0} s", (s - minutes * 60.0).min(59.0))
    }
}

/// A short time given in milliseconds: `4 ms`, `1.2 s`.
pub(super) fn millis(ms: f64) -> String {
    if ms < 999.5 { format!("{:.0} ms", ms.max(0.0)) } else { seconds(ms) }
}

/// A count of tokens: `64`, `1.2k`, `32k`, `2.9M`.
pub(super) fn tokens(count: u32) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..9_950 => format!("{:.1}k", f64::from(count) / 1000.0),
        9_950..999_500 => format!("{:.0}k", f64::from(count) / 1000.0),
        _ => format!("{:.1}M", f64::from(count) / 1e6),
    }
}

/// Tokens per second: `131 tok/s`, `14.2 tok/s`, `0.8 tok/s`.
pub(super) fn speed(per_s: f64) -> String {
    if per_s < 99.95 { format!("{per_s:.1} tok/s") } else { format!("{per_s:.0} tok/s") }
}

/// Weights: `494M`, `7.6B`, `70.6B`, `30B`.
pub(super) fn weights(count: u64) -> String {
    let n = float(count);
    if n < 0.95e9 {
        format!("{:.0}M", n / 1e6)
    } else if (n / 1e9 - (n / 1e9).round()).abs() < 0.05 {
        format!("{:.0}B", n / 1e9)
    } else {
        format!("{:.1}B", n / 1e9)
    }
}

/// A size: `4.7 GiB`, `352 MiB`, `12 KiB`.
pub(super) fn bytes(count: u64) -> String {
    let mib = float(count) / f64::from(1 << 20);
    match mib {
        ..0.95 => format!("{:.0} KiB", mib * 1024.0),
        ..9.95 => format!("{mib:.1} MiB"),
        ..972.0 => format!("{mib:.0} MiB"),
        _ => format!("{:.1} GiB", mib / 1024.0),
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

/// The whole number below, for values known to be small; 0 for what is no number or negative.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
pub(super) fn whole(value: f64) -> u64 {
    if value.is_finite() { value.clamp(0.0, 1e18) as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn numbers_have_units() {
        assert_eq!(
            [420.0, 2_100.0, 24_400.0, 200_000.0, -1.0, f64::NAN].map(seconds),
            ["0.42 s", "2.1 s", "24 s", "3 min 20 s", "0.00 s", "0.00 s"]
        );
        assert_eq!([4.2, 1_234.0].map(millis), ["4 ms", "1.2 s"]);
        assert_eq!([64, 1_234, 6_900, 32_768, 2_875_000].map(tokens), ["64", "1.2k", "6.9k", "33k", "2.9M"]);
        assert_eq!([131.4, 14.21].map(speed), ["131 tok/s", "14.2 tok/s"]);
        assert_eq!(
            [494_000_000, 7_615_000_000, 30_000_000_000, 70_600_000_000].map(weights),
            ["494M", "7.6B", "30B", "70.6B"]
        );
        assert_eq!([12 << 10, 352 << 20, 43 << 30].map(bytes), ["12 KiB", "352 MiB", "43.0 GiB"]);
        assert_eq!([whole(-1.0), whole(f64::NAN), whole(2.9)], [0, 0, 2]);
    }
}
