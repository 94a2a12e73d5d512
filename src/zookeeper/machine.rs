//! What words tell of the process and its machine.

use std::fmt::Write as _;

/// The answer to `envi`, without what only a Java machine has.
pub(super) fn environment(version: &str) -> String {
    let system = rustix::system::uname();
    let text = |it: &std::ffi::CStr| it.to_string_lossy().into_owned();
    let variable = |name| std::env::var(name).unwrap_or_default();
    let dir = std::env::current_dir().unwrap_or_default();
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        arch => arch,
    };
    let mut out = String::from("Environment:\n");
    for (name, value) in [
        ("zookeeper.version", version.to_owned()),
        ("host.name", text(system.nodename())),
        ("os.name", text(system.sysname())),
        ("os.arch", arch.to_owned()),
        ("os.version", text(system.release())),
        ("user.name", variable("USER")),
        ("user.home", variable("HOME")),
        ("user.dir", dir.display().to_string()),
    ] {
        let _ = writeln!(out, "{name}={value}");
    }
    out
}

/// Descriptors that are open, and how many may be, where the system can tell.
pub(super) fn descriptors() -> (Option<u64>, Option<u64>) {
    let max = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    // Linux says so since 6.2; before it is 0, and they are counted.
    let told = std::fs::metadata("/proc/self/fd").map_or(0, |it| it.len());
    let open = match told {
        0 => std::fs::read_dir("/proc/self/fd").ok().map(|it| it.count() as u64),
        told => Some(told),
    };
    (open, max)
}

/// A moment as Java writes it, in UTC.
pub(super) fn date(wall_ms: u64) -> String {
    let (seconds, days) = (wall_ms / 1000, wall_ms / 86_400_000);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    // Years begin in March here, so that a leap day is the last one (Hinnant, `civil_from_days`).
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let year = era * 400 + year + u64::from(month >= 10);
    let weekday = WEEKDAYS[(days % 7) as usize];
    let month = MONTHS[(month % 12) as usize];
    format!("{weekday} {month} {day:02} {hour:02}:{minute:02}:{second:02} UTC {year}")
}

/// From the day of the epoch on.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec", "Jan", "Feb"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, expected) in [
            (0, "Thu Jan 01 00:00:00 UTC 1970"),
            (951_782_400, "Tue Feb 29 00:00:00 UTC 2000"),
            (951_868_799, "Tue Feb 29 23:59:59 UTC 2000"),
            (1_709_251_200, "Fri Mar 01 00:00:00 UTC 2024"),
            (1_795_290_992, "Sat Nov 21 19:56:32 UTC 2026"),
            (4_107_542_399, "Sun Feb 28 23:59:59 UTC 2100"),
        ] {
            assert_eq!(date(seconds * 1000), expected);
        }
    }
}
