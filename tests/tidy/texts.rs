//! What must not stand in a file, and what must.

use crate::{Finding, source::Source};

/// Work that was left undone.
pub(super) fn leftovers(file: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut finding = |line, what: String| {
        let file = file.path.clone();
        found.push(Finding { file, line, what });
    };
    for at in 0..file.tokens.len() {
        let word = file.word(at);
        if ["todo", "unimplemented", "dbg"].contains(&word) && file.word(at + 1) == "!" {
            finding(file.line(at), format!("`{word}!`: do it, or open an issue"));
        }
        if word == "[" && file.word(at.wrapping_sub(1)) == "#" && file.word(at + 1) == "ignore" {
            finding(file.line(at), "a test that does not run: repair or delete it".to_owned());
        }
    }
    // The checks themselves name what they look for.
    if !file.path.starts_with("tests/tidy/") {
        for (at, line) in file.text.lines().enumerate() {
            if let Some(mark) =
                ["FIXME", "TODO", "XXX", "HACK"].iter().find(|it| line.contains(*it))
            {
                finding(at + 1, format!("`{mark}`: do it, or open an issue"));
            }
        }
    }
    found
}

/// `let` chains, which came after the oldest Rust that we support.
pub(super) fn let_chains(file: &Source) -> Vec<Finding> {
    let starts = |at: &usize| match file.word(*at) {
        "&" => file.word(at + 1) == "&" && file.word(at + 2) == "let",
        "if" | "while" => file.word(at + 1) == "let" && goes_on(file, at + 2),
        _ => false,
    };
    let finding = |at| Finding {
        file: file.path.clone(),
        line: file.line(at),
        what: "a `let` chain needs Rust 1.88: nest it, or use `filter` or `matches!`".to_owned(),
    };
    (0..file.tokens.len()).filter(starts).map(finding).collect()
}

/// Whether an `&&` follows in the condition whose pattern starts at `from`.
fn goes_on(file: &Source, from: usize) -> bool {
    let (mut at, mut depth, mut in_pattern) = (from, 0, true);
    while at < file.tokens.len() {
        match file.word(at) {
            "(" | "[" => depth += 1,
            ")" | "]" => depth -= 1,
            "{" if depth == 0 && !in_pattern => return false,
            "{" => at = file.closing(at),
            "=" if depth == 0 && file.word(at - 1) != "." => in_pattern = false,
            "&" if depth == 0 && !in_pattern && file.word(at + 1) == "&" => {
                // Behind a value it is `and`, else a reference to a reference.
                let before = file.word(at - 1);
                let value = |c: char| c.is_ascii_alphanumeric() || "_)]}?".contains(c);
                if before.ends_with(value) {
                    return true;
                }
            }
            _ => {}
        }
        at += 1;
    }
    false
}

/// Characters beyond ASCII.
pub(super) fn ascii(file: &Source) -> Vec<Finding> {
    let wide = |(at, line): (usize, &str)| {
        let c = line.chars().find(|c| !c.is_ascii())?;
        Some(Finding {
            file: file.path.clone(),
            line: at + 1,
            what: format!("`{}` is not ASCII", c.escape_unicode()),
        })
    };
    file.text.lines().enumerate().filter_map(wide).collect()
}

/// Folders of one machine in documents and in the docs of the code.
pub(super) fn machine_paths(file: &Source) -> Vec<Finding> {
    if file.path.starts_with("tests/tidy/") {
        return Vec::new();
    }
    let is_code = file.path.ends_with(".rs");
    let mut found = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        if is_code && !line.trim_start().starts_with("//") {
            continue;
        }
        let folders = ["/home/", "/root/", "/Users/", "/tmp/", "C:\\"];
        if let Some(folder) = folders.iter().find(|folder| line.contains(*folder)) {
            found.push(Finding {
                file: file.path.clone(),
                line: at + 1,
                what: format!("`{folder}` is a folder of one machine: say it for any"),
            });
        }
    }
    found
}

/// Dependencies without a reason.
pub(super) fn dependencies(file: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut inside = false;
    for (at, line) in file.text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.starts_with('[') {
            inside = trimmed.trim_end_matches(']').ends_with("dependencies");
            if trimmed.contains("dependencies.") {
                found.push(Finding {
                    file: file.path.clone(),
                    line: at + 1,
                    what: "a dependency has one line, with its reason".to_owned(),
                });
            }
            continue;
        }
        let reason = trimmed.rsplit_once('#').is_some_and(|(_, why)| why.trim().len() > 10);
        if inside && trimmed.contains('=') && !trimmed.starts_with('#') && !reason {
            found.push(Finding {
                file: file.path.clone(),
                line: at + 1,
                what: "say behind a `#` why the dependency is worth it".to_owned(),
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(found: Vec<Finding>) -> Vec<usize> {
        found.iter().map(|it| it.line).collect()
    }

    #[test]
    fn leftovers_are_seen() {
        let text =
            "f();\ntodo!();\n// FIXME later\n#[ignore]\nunimplemented!(\"x\");\nlet todo = 1;";
        assert_eq!(lines(leftovers(&Source::new("src/a.rs", text))), [2, 4, 5, 3]);
        assert!(leftovers(&Source::new("src/a.rs", "// \"todo!\" is banned")).is_empty());
    }

    #[test]
    fn let_chains_are_seen() {
        let bad = [
            "if let Some(x) = y && z {}",
            "if a && let Some(x) = y {}",
            "if let Some(x) = y\n    && let Some(z) = x {}",
            "while let Some(x) = y.next() && x > 1 {}",
            "if let A { b, .. } = f(|x| x && y)? && c {}",
            "if let 1..=5 = x && y {}",
            "} else if let [a, b] = it[..] && a == b {}",
        ];
        for text in bad {
            assert!(!let_chains(&Source::new("src/a.rs", text)).is_empty(), "{text}");
        }
        let good = [
            "if let Some(x) = f(|y| y && z) { a && b }",
            "if let Some(x) = &&y {} if c && d {}",
            "if let A { b: &&c, .. } = x { let d = a && b; }",
            "while let Some(x) = match y { z => a && b } {}",
            "let Some(x) = y.filter(|_| a && b) else { return };",
            "// if let Some(x) = y && z {}",
        ];
        for text in good {
            assert!(let_chains(&Source::new("src/a.rs", text)).is_empty(), "{text}");
        }
    }

    #[test]
    fn wide_characters_and_machines_are_seen() {
        let text = "a\n\u{2014}\n";
        assert_eq!(lines(ascii(&Source::new("README.md", text))), [2]);
        let text = "see /home/me/x\nsee /jobs/a\n";
        assert_eq!(lines(machine_paths(&Source::new("README.md", text))), [1]);
        let text = "let x = \"/tmp/x\";\n/// See /tmp/x.\n";
        assert_eq!(lines(machine_paths(&Source::new("src/a.rs", text))), [2]);
    }

    #[test]
    fn dependencies_without_a_reason_are_seen() {
        let text = "[package]\nname = 'x'\n[dependencies]\na = '1' # because of this and that\n\
            b = '1'\nc = '1' # x\n[dev-dependencies]\nd = '1'\n[dependencies.e]\nversion = '1'\n";
        assert_eq!(lines(dependencies(&Source::new("Cargo.toml", text))), [5, 6, 8, 9]);
    }
}
