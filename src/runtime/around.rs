//! How things stand around this machine: mains power and local time.

use std::path::Path;

/// Whether this machine runs without mains power, and local time less UTC in seconds. What can't be found out is taken
/// to be mains power, and UTC. Reads files, and on macOS runs `pmset`.
#[must_use]
pub fn look() -> (bool, i32) {
    (on_battery(), utc_offset_s())
}

fn utc_offset_s() -> i32 {
    jiff::tz::TimeZone::system().to_offset(jiff::Timestamp::now()).seconds()
}

#[cfg(not(target_os = "macos"))]
fn on_battery() -> bool {
    by_supplies(Path::new("/sys/class/power_supply"))
}

#[cfg(target_os = "macos")]
fn on_battery() -> bool {
    let told = std::process::Command::new("pmset").args(["-g", "batt"]).output();
    told.is_ok_and(|output| by_pmset(&String::from_utf8_lossy(&output.stdout)))
}

/// By what Linux lists: a battery of the machine that is being drained, and no line that delivers.
#[cfg_attr(target_os = "macos", expect(dead_code, reason = "macOS has another way"))]
fn by_supplies(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    let (mut is_draining, mut has_line) = (false, false);
    for entry in entries.flatten() {
        let word = |name: &str| {
            let text = std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            text.trim().to_lowercase()
        };
        match word("type").as_str() {
            // A mouse has a battery as well.
            "battery" if word("scope") != "device" => is_draining |= word("status") == "discharging",
            "mains" | "usb" => has_line |= word("online") == "1",
            _ => {}
        }
    }
    is_draining && !has_line
}

/// By what `pmset -g batt` prints in its first line.
#[cfg_attr(not(target_os = "macos"), cfg_attr(not(test), expect(dead_code, reason = "for macOS")))]
fn by_pmset(text: &str) -> bool {
    text.lines().next().is_some_and(|line| line.contains("'Battery Power'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supply(folder: &Path, name: &str, files: &[(&str, &str)]) {
        let at = folder.join(name);
        std::fs::create_dir(&at).expect("a folder");
        for (file, text) in files {
            std::fs::write(at.join(file), format!("{text}\n")).expect("written");
        }
    }

    #[test]
    fn a_battery_that_drains_is_no_mains_power() {
        let dir = tempfile::tempdir().expect("a folder");
        let at = dir.path();
        assert!(!by_supplies(&at.join("nothing")), "a machine without any");
        supply(at, "hidpp_battery_0", &[("type", "Battery"), ("scope", "Device"), ("status", "Discharging")]);
        assert!(!by_supplies(at), "a mouse");
        supply(at, "BAT0", &[("type", "Battery"), ("status", "Discharging")]);
        assert!(by_supplies(at));
        supply(at, "AC", &[("type", "Mains"), ("online", "0")]);
        assert!(by_supplies(at));
        std::fs::write(at.join("AC/online"), "1\n").expect("written");
        assert!(!by_supplies(at), "plugged in");
    }

    #[test]
    fn what_pmset_says_is_understood() {
        assert!(by_pmset("Now drawing from 'Battery Power'\n -InternalBattery-0 (id=1)\t77%; discharging;"));
        assert!(!by_pmset("Now drawing from 'AC Power'\n -InternalBattery-0 (id=1)\t100%; charged;"));
        assert!(!by_pmset(""));
    }
}
