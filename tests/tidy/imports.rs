//! Who may know whom: the table of rows in ARCHITECTURE.md.

use std::collections::BTreeMap;

use crate::{Finding, source::Source};

/// Rooms by row; a room knows those in rows before its own.
const ROWS: [&[&str]; 11] = [
    &["config", "path", "id", "time", "proto", "record", "mutant"],
    &["op"],
    &["command", "wire"],
    &["namespace", "consensus", "recipes"],
    &["node"],
    &["wal"],
    &["client"],
    &["driver", "tls"],
    &["tcp", "zookeeper"],
    &["sim"],
    &["fuzz"],
];

/// What a room must not know although its row would allow it.
const STRANGERS: [(&str, &[&str]); 3] =
    [("consensus", &["path", "op", "command"]), ("namespace", &["wire"]), ("recipes", &["wire"])];

/// Where the names at the crate's root live.
#[derive(Debug)]
pub(super) struct Root(BTreeMap<String, String>);

impl Root {
    /// From the imports of `src/lib.rs`.
    pub(super) fn new(lib: &Source) -> Self {
        let mut names = BTreeMap::new();
        for at in 0..lib.tokens.len() {
            if lib.word(at) == "use" {
                let (mut end, mut leaves) = (at + 1, Vec::new());
                tree(lib, &mut end, &[], &mut leaves);
                for (path, _) in leaves {
                    if let (Some(room), Some(name)) = (path.first(), path.last()) {
                        names.insert(name.clone(), room.clone());
                    }
                }
            }
        }
        Self(names)
    }

    fn room<'a>(&'a self, name: &'a str) -> &'a str {
        self.0.get(name).map_or(name, String::as_str)
    }
}

/// Every path of a file that leads into a room it must not know, in any form of import.
pub(super) fn rows(file: &Source, root: &Root) -> Vec<Finding> {
    let place = place(&file.path);
    let Some(own) = place.first().cloned() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    let mut finding = |line, what| {
        let file = file.path.clone();
        found.push(Finding { file, line, what });
    };
    let Some(own_row) = row(&own) else {
        finding(1, format!("room `{own}` is in no row: add it to tests/tidy/imports.rs"));
        return found;
    };
    for (path, line) in paths(file, &place) {
        let Some(room) = path.first().map(|name| root.room(name)) else {
            finding(line, "import by name, not everything at the root".to_owned());
            continue;
        };
        let Some(their_row) = row(room) else {
            finding(line, format!("`crate::{room}` is no room: import it from where it lives"));
            continue;
        };
        let strange = STRANGERS.iter().any(|(who, whom)| *who == own && whom.contains(&room));
        if room != own && (strange || (their_row >= own_row && own_row > 0)) {
            finding(line, format!("room `{own}` must not know `{room}`: move what both need up"));
        } else if their_row > own_row {
            finding(line, format!("row 0 knows nothing of ours, and not `{room}`"));
        }
    }
    found
}

/// Names of raft's crates outside the room that contains them.
pub(super) fn raft(file: &Source) -> Vec<Finding> {
    if file.path.starts_with("src/consensus/") {
        return Vec::new();
    }
    let named = |at: &usize| {
        let foreign = ["raft", "raft_proto", "protobuf", "eraftpb"].contains(&file.word(*at));
        let imported =
            file.word(at.wrapping_sub(1)) == "use" || file.word(at.wrapping_sub(1)) == "crate";
        let imported = imported && file.word(at + 1) != "::" && at > &0;
        foreign && (file.word(at + 1) == "::" || imported) && file.word(at.wrapping_sub(1)) != "::"
    };
    let places = (0..file.tokens.len()).filter(named);
    let finding = |at| Finding {
        file: file.path.clone(),
        line: file.line(at),
        what: format!("`{}` is named in src/consensus/ only", file.word(at)),
    };
    places.map(finding).collect()
}

/// Files that no `mod` line names.
pub(super) fn dead(files: &[Source]) -> Vec<Finding> {
    let mut declared = vec!["src/lib.rs".to_owned()];
    for file in files {
        let place = place(&file.path).join("/");
        let folder = if place.is_empty() { "src".to_owned() } else { format!("src/{place}") };
        for at in 0..file.tokens.len() {
            if file.word(at) == "mod" && file.word(at + 2) == ";" {
                let name = file.word(at + 1);
                declared.push(format!("{folder}/{name}.rs"));
                declared.push(format!("{folder}/{name}/mod.rs"));
            }
        }
    }
    let dead = files.iter().filter(|file| !declared.contains(&file.path));
    let finding = |file: &Source| Finding {
        file: file.path.clone(),
        line: 1,
        what: "no `mod` line names this file: name it, or delete it".to_owned(),
    };
    dead.map(finding).collect()
}

fn row(room: &str) -> Option<usize> {
    ROWS.iter().position(|rooms| rooms.contains(&room))
}

/// The module that a file is: `src/node/ready.rs` is node, ready.
fn place(path: &str) -> Vec<String> {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs");
    let mut parts: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if matches!(parts.last().map(String::as_str), Some("mod" | "lib")) {
        parts.pop();
    }
    parts
}

/// Every path into this crate, resolved from its root, with its line.
fn paths(file: &Source, place: &[String]) -> Vec<(Vec<String>, usize)> {
    let mut found = Vec::new();
    let mut inside: Vec<(String, usize)> = Vec::new();
    let mut at = 0;
    while at < file.tokens.len() {
        inside.retain(|(_, end)| at <= *end);
        if file.word(at) == "mod" && file.word(at + 2) == "{" {
            inside.push((file.word(at + 1).to_owned(), file.closing(at + 2)));
        }
        let here = place.iter().cloned().chain(inside.iter().map(|(name, _)| name.clone()));
        let here: Vec<String> = here.collect();
        let starts = ["crate", "super", "self"].contains(&file.word(at));
        if file.word(at) == "use" {
            let mut end = at + 1;
            let mut leaves = Vec::new();
            tree(file, &mut end, &[], &mut leaves);
            found.extend(
                leaves.into_iter().filter_map(|(path, line)| Some((resolve(&path, &here)?, line))),
            );
            at = end;
        } else if starts && file.word(at + 1) == "::" && file.word(at.wrapping_sub(1)) != "::" {
            let (path, line) = (straight(file, at), file.line(at));
            at += path.len() * 2 - 1;
            found.extend(resolve(&path, &here).map(|path| (path, line)));
        } else {
            at += 1;
        }
    }
    found
}

/// The leaves of a tree of imports.
fn tree(file: &Source, at: &mut usize, prefix: &[String], leaves: &mut Vec<(Vec<String>, usize)>) {
    let mut path = prefix.to_vec();
    let line = file.line(*at);
    loop {
        match file.word(*at) {
            "::" => *at += 1,
            "{" => {
                *at += 1;
                while !["}", ""].contains(&file.word(*at)) {
                    tree(file, at, &path, leaves);
                    if file.word(*at) == "," {
                        *at += 1;
                    }
                }
                *at += 1;
                return;
            }
            "as" => *at += 2,
            "," | ";" | "}" | "" => break,
            word => {
                path.push(word.to_owned());
                *at += 1;
            }
        }
    }
    leaves.push((path, line));
}

fn straight(file: &Source, start: usize) -> Vec<String> {
    let mut path = vec![file.word(start).to_owned()];
    let is_name = |word: &str| word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let mut at = start + 1;
    while file.word(at) == "::" && is_name(file.word(at + 1)) {
        path.push(file.word(at + 1).to_owned());
        at += 2;
    }
    path
}

/// A path from the crate's root, or `None` when it leads elsewhere.
fn resolve(path: &[String], here: &[String]) -> Option<Vec<String>> {
    let mut resolved = match path.first()?.as_str() {
        "crate" => Vec::new(),
        "self" | "super" => here.to_vec(),
        _ => return None,
    };
    for part in path {
        match part.as_str() {
            "crate" | "self" => {}
            "super" => {
                resolved.pop();
            }
            "*" => break,
            name => resolved.push(name.to_owned()),
        }
    }
    Some(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<usize> {
        let root = Root::new(&Source::new("src/lib.rs", "mod a; pub use node::{Node, Ready};"));
        rows(&Source::new(path, text), &root).iter().map(|it| it.line).collect()
    }

    #[test]
    fn every_form_of_import_is_seen() {
        let bad = [
            "use crate::node::Message;",
            "use crate::{id::NodeId, node::Message};",
            "use crate::{\n  id::NodeId,\n  node::{self, ready::{Ready}},\n};",
            "pub use crate::node::Message;",
            "pub(crate) use crate::node as other;",
            "use super::super::node;",
            "use super::{super::node::Message};",
            "fn f(x: crate::node::Message) {}",
            "fn f(x: super::super::node::Message) {}",
            "fn f() { let x = crate::node::Node::open; }",
            "mod tests { use super::super::super::node::Message; }",
            "macro_rules! m { () => { $crate::node::Node } }",
            "use crate::Config;",
            "use crate::Node;",
            "fn f(x: crate::Ready) {}",
            "use crate::*;",
            "use self::super::super::node::Message;",
        ];
        for text in bad {
            assert!(!found("src/namespace/tree.rs", text).is_empty(), "{text}");
        }
        let line = found("src/namespace/tree.rs", "\n\nuse crate::{\n  id,\n  node,\n};");
        assert_eq!(line, [5]);
    }

    #[test]
    fn what_is_allowed_is_not_found() {
        let good = [
            "use crate::{id::{NodeId, Zxid}, op::Op, command::Command, proto};",
            "use super::{tree, View};",
            "use crate::namespace::View;",
            "mod tests { use super::super::View; use super::*; }",
            "// use crate::node::Message;",
            "let x = \"crate::node\";",
            "use std::{fmt, net::self};",
        ];
        for text in good {
            assert!(found("src/namespace/tree.rs", text).is_empty(), "{text}");
        }
        assert!(found("src/config.rs", "use crate::id::NodeId;").is_empty());
        assert!(found("src/lib.rs", "pub use node::Node; mod node;").is_empty());
    }

    #[test]
    fn rows_and_strangers_hold() {
        let bad = [
            ("src/id.rs", "use crate::op::Op;"),
            ("src/command.rs", "use crate::wire::Frame;"),
            ("src/consensus/mod.rs", "use crate::op::Op;"),
            ("src/consensus/mod.rs", "use crate::namespace::Namespace;"),
            ("src/namespace/mod.rs", "use crate::wire::Frame;"),
            ("src/node/mod.rs", "use crate::wal::Log;"),
            ("src/wal/mod.rs", "use crate::driver::Host;"),
            ("src/driver/mod.rs", "use crate::tcp::TcpTransport;"),
            ("src/cellar/mod.rs", ""),
        ];
        for (path, text) in bad {
            assert_eq!(found(path, text).len(), 1, "{path}: {text}");
        }
    }

    #[test]
    fn raft_is_seen_outside_its_room() {
        let count = |path, text| raft(&Source::new(path, text)).len();
        assert_eq!(count("src/node/mod.rs", "use raft::RawNode;"), 1);
        assert_eq!(count("src/node/mod.rs", "use raft;"), 1);
        assert_eq!(count("src/node/mod.rs", "fn f(x: ::raft::Config) {}"), 0);
        assert_eq!(count("src/node/mod.rs", "fn f(x: raft::Config) {}"), 1);
        assert_eq!(count("src/node/mod.rs", "extern crate raft;"), 1);
        assert_eq!(count("src/node/mod.rs", "let raft = 1; self.raft.tick();"), 0);
        assert_eq!(count("src/consensus/mod.rs", "use raft::RawNode;"), 0);
    }

    #[test]
    fn dead_files_are_seen() {
        let files = [
            Source::new("src/lib.rs", "mod a; mod b;"),
            Source::new("src/a.rs", ""),
            Source::new("src/b/mod.rs", "mod c; // mod d;"),
            Source::new("src/b/c.rs", ""),
            Source::new("src/b/d.rs", ""),
        ];
        let found: Vec<_> = dead(&files).into_iter().map(|it| it.file).collect();
        assert_eq!(found, ["src/b/d.rs"]);
    }
}
