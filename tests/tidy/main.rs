//! The rules of CONTRIBUTING.md that a machine can check, over every file of the project.
//!
//! Each finding names the file, the line, and what to do. Every check is tried on small bad
//! samples, too: a check that finds nothing anywhere proves nothing.

mod imports;
mod names;
mod sizes;
mod source;
mod texts;

use std::{fmt::Write as _, fs, path::Path};

use source::Source;

/// A broken rule.
#[derive(Debug)]
struct Finding {
    file: String,
    line: usize,
    what: String,
}

fn report(findings: Vec<Finding>) {
    let mut text = String::new();
    for Finding { file, line, what } in &findings {
        writeln!(text, "{file}:{line}: {what}").expect("a string takes all");
    }
    assert!(findings.is_empty(), "{} findings\n{text}", findings.len());
}

/// Every file below `folder` of the project whose name ends in one of `endings`.
fn files(folder: &str, endings: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("a folder of the project can be read").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("names are ASCII");
            if path.is_dir() && name != "target" && name != "corpus" {
                folders.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                let inside = path.strip_prefix(root).expect("it lies below the root");
                let text = fs::read_to_string(&path).expect("sources are text");
                found.push(Source::new(&inside.display().to_string(), &text));
            }
        }
    }
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

fn core() -> Vec<Source> {
    let found = files("src", &[".rs"]);
    assert!(found.len() > 10, "the sources are not where they are looked for");
    found.into_iter().filter(|file| file.path != "src/proto.rs").collect()
}

fn all_code() -> Vec<Source> {
    let folders = ["tests", "examples", "benches", "tools", "fuzz"];
    let others = folders.iter().flat_map(|folder| files(folder, &[".rs"]));
    core().into_iter().chain(others).collect()
}

fn documents() -> Vec<Source> {
    let root = fs::read_dir(env!("CARGO_MANIFEST_DIR")).expect("the root can be read");
    let mut found = files("src", &[".md"]);
    found.extend(files(".ci", &[""]));
    for entry in root {
        let name = entry.expect("the root can be read").file_name();
        let name = name.to_str().expect("names are ASCII");
        if name.ends_with(".md") || name.ends_with(".toml") {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            found.push(Source::new(name, &fs::read_to_string(path).expect("it is text")));
        }
    }
    found
}

#[test]
fn rooms_import_only_from_rows_above() {
    let files = core();
    let lib = files.iter().find(|file| file.path == "src/lib.rs").expect("there is a root");
    let root = imports::Root::new(lib);
    report(files.iter().flat_map(|file| imports::rows(file, &root)).collect());
}

#[test]
fn raft_stays_in_its_room() {
    report(core().iter().flat_map(imports::raft).collect());
}

#[test]
fn no_file_is_dead() {
    report(imports::dead(&core()));
}

#[test]
fn files_functions_and_lines_are_short() {
    let files = all_code();
    let mut found: Vec<Finding> = files.iter().flat_map(sizes::file).collect();
    found.extend(files.iter().flat_map(sizes::functions));
    found.extend(files.iter().flat_map(sizes::lines));
    let examples = files.iter().filter(|file| file.path.starts_with("examples/"));
    found.extend(examples.flat_map(sizes::example));
    report(found);
}

#[test]
fn names_say_what_things_are() {
    report(all_code().iter().flat_map(names::types).collect());
    report(core().iter().flat_map(names::aliases).collect());
}

#[test]
fn traits_are_few() {
    report(names::traits(&core()));
}

#[test]
fn nothing_is_left_over() {
    report(all_code().iter().flat_map(texts::leftovers).collect());
}

#[test]
fn the_oldest_rust_can_read_it() {
    report(all_code().iter().flat_map(texts::let_chains).collect());
}

#[test]
fn sources_and_documents_are_ascii_and_name_no_machine() {
    let sources: Vec<_> = all_code().into_iter().chain(documents()).collect();
    report(sources.iter().flat_map(texts::ascii).collect());
    report(sources.iter().flat_map(texts::machine_paths).collect());
}

#[test]
fn each_dependency_says_why() {
    let manifests: Vec<_> =
        documents().into_iter().filter(|file| file.path == "Cargo.toml").collect();
    assert_eq!(manifests.len(), 1);
    report(manifests.iter().flat_map(texts::dependencies).collect());
}
