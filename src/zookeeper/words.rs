//! The four-letter words that need to know nothing of the node.

use std::fmt::Write as _;

/// The answer to a word; `None` if it is none of them.
pub(super) fn answer(word: [u8; 4]) -> Option<String> {
    Some(match &word {
        b"ruok" => "imok".into(),
        b"isro" => "rw".into(),
        b"envi" => environment(),
        _ => return None,
    })
}

/// Clients ask it for the version.
fn environment() -> String {
    let mut text = String::from("Environment:\n");
    let _ = writeln!(text, "zookeeper.version={VERSION}");
    let _ = writeln!(text, "os.name={}", std::env::consts::OS);
    let _ = writeln!(text, "os.arch={}", std::env::consts::ARCH);
    text
}

/// What clients take the server for, to know what it can.
const VERSION: &str = "3.9.0-quorate, built on 2026-01-01 00:00 UTC";
