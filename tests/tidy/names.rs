//! What things are called, and how many traits there are.

use crate::{Finding, source::Source};

/// Words that say nothing about a type.
const EMPTY_WORDS: [&str; 10] = [
    "Manager", "Handler", "Helper", "Util", "Service", "Wrapper", "Info", "Data", "Impl", "Context",
];
const EMPTY_WORD_PROCESSOR: &str = "Processor";

/// The crate's traits: each has a real and a simulated implementation.
const TRAITS: [&str; 5] = ["Fs", "FsFile", "Transport", "Application", "Jute"];
const TRAITS_MAX: usize = 5;

/// Types whose name holds an empty word.
pub(super) fn types(file: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    for at in 0..file.tokens.len() {
        let keyword = ["struct", "enum", "trait", "union", "type"].contains(&file.word(at));
        let name = file.word(at + 1);
        let empty = words(name)
            .into_iter()
            .find(|word| EMPTY_WORDS.contains(&word.as_str()) || word == EMPTY_WORD_PROCESSOR);
        if let (true, Some(word)) = (keyword, empty) {
            found.push(Finding {
                file: file.path.clone(),
                line: file.line(at),
                what: format!("`{name}`: `{word}` says nothing; name what it is"),
            });
        }
    }
    found
}

/// Type aliases, which hide what a type is.
pub(super) fn aliases(file: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut blocks: Vec<bool> = Vec::new();
    let mut is_module = false;
    for at in 0..file.tokens.len() {
        match file.word(at) {
            "mod" => is_module = true,
            ";" => is_module = false,
            "{" => blocks.push(std::mem::take(&mut is_module)),
            "}" => {
                blocks.pop();
            }
            "type" if blocks.iter().all(|module| *module) => found.push(Finding {
                file: file.path.clone(),
                line: file.line(at),
                what: format!("`{}` is an alias: write the type, or make one", file.word(at + 1)),
            }),
            _ => {}
        }
    }
    found
}

/// Traits that are not among the few.
pub(super) fn traits(files: &[Source]) -> Vec<Finding> {
    assert!(TRAITS.len() <= TRAITS_MAX);
    let mut found = Vec::new();
    for file in files {
        for at in 0..file.tokens.len() {
            let name = file.word(at + 1);
            if file.word(at) == "trait" && !TRAITS.contains(&name) {
                found.push(Finding {
                    file: file.path.clone(),
                    line: file.line(at),
                    what: format!(
                        "trait `{name}`: a type or a function does, or name it in TRAITS"
                    ),
                });
            }
        }
    }
    found
}

/// `TcpDataFile` as Tcp, Data, File.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for c in name.chars() {
        match words.last_mut() {
            Some(word) if !c.is_ascii_uppercase() => word.push(c),
            _ => words.push(c.to_string()),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_words_are_seen() {
        let count = |text| types(&Source::new("src/a.rs", text)).len();
        for text in [
            "struct PeerManager;",
            "pub enum DataKind {}",
            "pub(crate) trait Handler {}",
            "struct ReadContext<'a>(&'a u8);",
            "struct LogProcessor;",
        ] {
            assert_eq!(count(text), 1, "{text}");
        }
        for text in ["struct Database;", "struct Peer; // PeerManager", "fn f(x: DataKind) {}"] {
            assert_eq!(count(text), 0, "{text}");
        }
    }

    #[test]
    fn aliases_are_seen() {
        let count = |text| aliases(&Source::new("src/a.rs", text)).len();
        assert_eq!(count("type A = u8;"), 1);
        assert_eq!(count("mod b { pub type A = u8; }"), 1);
        assert_eq!(count("impl Future for X { type Output = u8; }"), 0);
    }

    #[test]
    fn further_traits_are_seen() {
        let files = [Source::new("src/a.rs", "pub trait Transport {} trait Ext { fn f(); }")];
        let found = traits(&files);
        assert_eq!(found.len(), 1);
        assert!(found[0].what.contains("Ext"));
    }
}
