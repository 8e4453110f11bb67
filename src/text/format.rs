//! Numbers as people read them: tokens, times, speeds, sizes. Units are always there.

/// A count of tokens: `64`, `1.2k`, `32k`.
pub(crate) fn tokens(count: u32) -> String {
    match count {
        0..1_000 => count.to_string(),
        1_000..9_950 => format!("{:.1}k", f64::from(count) / 1000.0),
        9_950..1_000_000 => format!("{:.0}k", f64::from(count) / 1000.0),
        _ => format!("{:.1}M", f64::from(count) / 1e6),
    }
}

/// A size of a context: powers of two read as such, `8k`, `32k`.
pub(crate) fn context(count: u32) -> String {
    if count >= 1024 && count.is_multiple_of(1024) { format!("{}k", count / 1024) } else { tokens(count) }
}

/// A time given in milliseconds, in seconds: `0.18 s`, `2.1 s`, `24.5 s`, `3 min 20 s`.
pub(crate) fn seconds(ms: f64) -> String {
    let s = ms.max(0.0) / 1000.0;
    if s < 0.995 {
        format!("{s:.2} s")
    } else if s < 99.95 {
        format!("{s:.1} s")
    } else {
        let whole = whole(s);
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

/// A short time given in milliseconds: `0`, `4 ms`, `1.2 s`.
pub(crate) fn millis(ms: f64) -> String {
    if ms < 0.5 {
        "0".to_owned()
    } else if ms < 999.5 {
        format!("{ms:.0} ms")
    } else {
        seconds(ms)
    }
}

/// Tokens per second: `131 tok/s`, `14.2 tok/s`.
pub(crate) fn speed(per_s: f64) -> String {
    if per_s < 99.95 { format!("{per_s:.1} tok/s") } else { format!("{per_s:.0} tok/s") }
}

/// Energy in joules: `0.4 J`, `312 J`, `4.1 kJ`.
pub(crate) fn energy(joules: f64) -> String {
    match joules {
        ..9.95 => format!("{joules:.1} J"),
        ..999.5 => format!("{joules:.0} J"),
        _ => format!("{:.1} kJ", joules / 1000.0),
    }
}

/// How many weights a model has: `30k`, `2M`, `7B`, `1.5B`.
pub(crate) fn parameters(count: u64) -> String {
    let n = float(count);
    let (n, unit) = match count {
        0..950_000 => return format!("{:.0}k", n / 1e3),
        950_000..950_000_000 => (n / 1e6, "M"),
        _ => (n / 1e9, "B"),
    };
    if n < 9.95 && (n - n.round()).abs() > 0.05 { format!("{n:.1}{unit}") } else { format!("{n:.0}{unit}") }
}

/// A size: `4.7 GiB`, `352 MiB`, `2.0 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    let n = float(count);
    let mib = n / f64::from(1 << 20);
    match mib {
        ..0.95 => format!("{:.0} KiB", n / 1024.0),
        ..9.95 => format!("{mib:.1} MiB"),
        ..972.0 => format!("{mib:.0} MiB"),
        _ => format!("{:.1} GiB", mib / 1024.0),
    }
}

/// One size of another: `18.1 of 43.1 GiB`, `352 MiB of 4.7 GiB`.
pub(crate) fn bytes_of(part: u64, whole: u64) -> String {
    let is_nothing = part == 0;
    let (part, whole) = (bytes(part), bytes(whole));
    match (part.split_once(' '), whole.split_once(' ')) {
        (Some(_), _) if is_nothing => format!("0 of {whole}"),
        (Some((number, unit)), Some((_, same))) if unit == same => format!("{number} of {whole}"),
        _ => format!("{part} of {whole}"),
    }
}

/// A time in seconds, in one unit or two: `40 s`, `4 m`, `1 h 5 m`.
pub(crate) fn short_time(seconds: u64) -> String {
    match (seconds / 3600, seconds % 3600 / 60) {
        (0, 0) => format!("{seconds} s"),
        (0, minutes) => format!("{minutes} m"),
        (hours, 0) => format!("{hours} h"),
        (hours, minutes) => format!("{hours} h {minutes} m"),
    }
}

/// How much of a whole a part is, from 0 to 1; nothing of nothing is 0.
pub(crate) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (float(part) / float(whole)).clamp(0.0, 1.0) }
}

/// How many of so many cells a share fills.
pub(crate) fn part(share: f64, cells: usize) -> usize {
    let cells = u64::try_from(cells).unwrap_or(0);
    usize::try_from(whole(share.clamp(0.0, 1.0) * float(cells)).min(cells)).unwrap_or(0)
}

#[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
fn float(count: u64) -> f64 {
    count as f64
}

/// A share of 1 in whole percent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.0} %", share.clamp(0.0, 9.99) * 100.0)
}

/// A bar of ten cells: `▓▓▓▓░░░░░░`.
pub(crate) fn bar(share: f64) -> String {
    let full = part(share, 10);
    format!("{}{}", "▓".repeat(full), "░".repeat(10 - full))
}

/// The nearest whole number, for values known to be small and not negative.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
fn whole(value: f64) -> u64 {
    if value.is_finite() { value.round().clamp(0.0, 1e15) as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pretty_assertions::assert_eq;

    #[test]
    fn numbers_read_well() {
        assert_eq!(
            [0, 999, 1234, 9_949, 9_999, 123_456, 2_500_000].map(tokens),
            ["0", "999", "1.2k", "9.9k", "10k", "123k", "2.5M"]
        );
        assert_eq!([2048, 32_768, 1000, 131_072].map(context), ["2k", "32k", "1.0k", "128k"]);
        assert_eq!(
            [180.0, 2_100.0, 24_480.0, 200_000.0, -3.0].map(seconds),
            ["0.18 s", "2.1 s", "24.5 s", "3 min 20 s", "0.00 s"]
        );
        assert_eq!([0.0, 4.2, 1234.0].map(millis), ["0", "4 ms", "1.2 s"]);
        assert_eq!([131.4, 14.21].map(speed), ["131 tok/s", "14.2 tok/s"]);
        assert_eq!(
            [30_000, 2_000_000, 7_615_000_000, 1_540_000_000, 70_600_000_000].map(parameters),
            ["30k", "2M", "7.6B", "1.5B", "71B"]
        );
        assert_eq!(
            [900, 2 << 20, 352 << 20, 43 << 30].map(bytes),
            ["1 KiB", "2.0 MiB", "352 MiB", "43.0 GiB"]
        );
        assert_eq!(bytes_of(18 << 30, 43 << 30), "18.0 of 43.0 GiB");
        assert_eq!(bytes_of(0, 43 << 30), "0 of 43.0 GiB");
        assert_eq!(bytes_of(352 << 20, 43 << 30), "352 MiB of 43.0 GiB");
        assert_eq!([40, 60, 240, 3600, 3900].map(short_time), ["40 s", "1 m", "4 m", "1 h", "1 h 5 m"]);
        assert_eq!((share(1, 0), share(3, 2), share(1, 4)), (0.0, 1.0, 0.25));
        assert_eq!((part(0.5, 7), part(f64::NAN, 7), part(2.0, 7)), (4, 0, 7));
        assert_eq!(percent(0.19), "19 %");
        assert_eq!(bar(0.42), "▓▓▓▓░░░░░░");
        assert_eq!(bar(f64::NAN), "░░░░░░░░░░");
    }
}
