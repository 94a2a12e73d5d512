//! How long a file, a function and a line may be.

use crate::{Finding, source::Source};

const FILE_MAX: usize = 600;
const FILE_WITH_TESTS_MAX: usize = 800;
const FUNCTION_MAX: usize = 70;
const LINE_MAX: usize = 100;
const EXAMPLE_MAX: usize = 149;

/// Lines of code of a file, without and with its tests.
pub(super) fn file(file: &Source) -> Option<Finding> {
    let all = file.code_lines(1, file.code.lines().count().max(1));
    let tests = file.inline_tests().map_or(0, |(first, last)| file.code_lines(first, last));
    let only_tests = file.path.contains("tests");
    let (size, max) = if all > FILE_WITH_TESTS_MAX || only_tests {
        (all, FILE_WITH_TESTS_MAX)
    } else {
        (all - tests, FILE_MAX)
    };
    (size > max).then(|| Finding {
        file: file.path.clone(),
        line: 1,
        what: format!("{size} lines of code, and {max} are allowed: split it by what it knows"),
    })
}

/// Functions with more lines of code than allowed.
pub(super) fn functions(file: &Source) -> Vec<Finding> {
    let mut found = Vec::new();
    for at in 0..file.tokens.len() {
        let named = file.word(at + 1).starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        if file.word(at) != "fn" || !named {
            continue;
        }
        let body = (at..file.tokens.len()).find(|at| ["{", ";"].contains(&file.word(*at)));
        let Some(open) = body.filter(|open| file.word(*open) == "{") else {
            continue;
        };
        let line = file.line(at);
        let size = file.code_lines(line, file.line(file.closing(open)).max(line));
        if size > FUNCTION_MAX {
            let name = file.word(at + 1);
            found.push(Finding {
                file: file.path.clone(),
                line,
                what: format!(
                    "`{name}` has {size} lines, and {FUNCTION_MAX} are allowed: split it"
                ),
            });
        }
    }
    found
}

/// Lines with more columns than allowed.
pub(super) fn lines(file: &Source) -> Vec<Finding> {
    let long = |(_, line): &(usize, &str)| line.chars().count() > LINE_MAX;
    let lines = file.text.lines().enumerate().filter(long);
    let finding = |(at, line): (usize, &str)| Finding {
        file: file.path.clone(),
        line: at + 1,
        what: format!("{} columns, and {LINE_MAX} are allowed", line.chars().count()),
    };
    lines.map(finding).collect()
}

/// An example's length, its comments included: it is read as a whole.
pub(super) fn example(file: &Source) -> Option<Finding> {
    let size = file.text.lines().count();
    (size > EXAMPLE_MAX).then(|| Finding {
        file: file.path.clone(),
        line: 1,
        what: format!("{size} lines, and an example has at most {EXAMPLE_MAX}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_files_are_seen() {
        let code = "x;\n";
        let tests = |count| format!("mod tests {{\n{}}}\n", code.repeat(count));
        let size = |path, text: &str| file(&Source::new(path, text)).is_some();
        assert!(!size("src/a.rs", &code.repeat(600)));
        assert!(size("src/a.rs", &code.repeat(601)));
        assert!(!size("src/a.rs", &(code.repeat(590) + &"// x\n\n".repeat(500))));
        assert!(!size("src/a.rs", &(code.repeat(600) + &tests(198))));
        assert!(size("src/a.rs", &(code.repeat(600) + &tests(199))));
        assert!(size("src/a/tests.rs", &code.repeat(801)));
    }

    #[test]
    fn long_functions_are_seen() {
        let count = |lines: usize| {
            let body = "  x();\n".repeat(lines - 2);
            let text = format!("fn short();\nimpl A {{\n pub fn f(x: fn(u8)) {{\n{body} }}\n}}\n");
            functions(&Source::new("src/a.rs", &text)).len()
        };
        assert_eq!((count(70), count(71)), (0, 1));
    }

    #[test]
    fn long_lines_and_examples_are_seen() {
        let text = format!("{}\n{}\n", "x".repeat(100), "x".repeat(101));
        let found = lines(&Source::new("src/a.rs", &text));
        assert_eq!(found.iter().map(|it| it.line).collect::<Vec<_>>(), [2]);
        assert!(example(&Source::new("examples/a.rs", &"\n".repeat(149))).is_none());
        assert!(example(&Source::new("examples/a.rs", &"\n".repeat(150))).is_some());
    }
}
