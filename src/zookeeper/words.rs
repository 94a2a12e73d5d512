//! The four-letter words.

use std::{fmt::Write as _, net::SocketAddr, time::Duration};

use crate::{client::Client, zookeeper::watches::Watches};

/// What there is to tell.
pub(super) struct About<'a> {
    pub(super) client: &'a Client,
    pub(super) lines: usize,
    pub(super) watches: &'a Watches,
    pub(super) uptime: Duration,
    pub(super) peer: SocketAddr,
}

/// The answer to a word; `None` if it is none.
pub(super) fn answer(word: [u8; 4], about: &About<'_>) -> Option<String> {
    Some(match &word {
        b"ruok" => "imok".into(),
        b"isro" => "rw".into(),
        b"envi" => envi(),
        _ => return None,
    })
}

fn envi() -> String {
    let mut text = String::from("Environment:\n");
    let _ = writeln!(text, "zookeeper.version={VERSION}");
    let _ = writeln!(text, "os.name={}", std::env::consts::OS);
    let _ = writeln!(text, "os.arch={}", std::env::consts::ARCH);
    text
}

/// What clients take the server for, to know what it can.
pub(super) const VERSION: &str = "3.9.0-quorate, built on 2026-01-01 00:00 UTC";
