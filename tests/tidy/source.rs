//! A file with its comments and strings blanked out, and its words and marks.

/// A file of the project.
#[derive(Debug)]
pub(super) struct Source {
    /// From the project's root.
    pub(super) path: String,
    pub(super) text: String,
    /// The text with comments, strings and characters as blanks; the lines are the same.
    pub(super) code: String,
    pub(super) tokens: Vec<Token>,
}

/// A word, `::`, or a single mark.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Token {
    pub(super) word: String,
    /// From 1.
    pub(super) line: usize,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let code = blank(text);
        let tokens = tokens(&code);
        let (path, text) = (path.replace('\\', "/"), text.to_owned());
        Self { path, text, code, tokens }
    }

    /// The word at a place, or nothing past the end.
    pub(super) fn word(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.word)
    }

    pub(super) fn line(&self, at: usize) -> usize {
        self.tokens.get(at).map_or(0, |token| token.line)
    }

    /// The place of the brace that closes the one at `open`.
    pub(super) fn closing(&self, open: usize) -> usize {
        let mut depth = 0;
        for at in open..self.tokens.len() {
            match self.word(at) {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return at;
            }
        }
        self.tokens.len()
    }

    /// Lines from `first` to `last` that hold code.
    pub(super) fn code_lines(&self, first: usize, last: usize) -> usize {
        let lines = self.code.lines().skip(first - 1).take(last + 1 - first);
        lines.filter(|line| !line.trim().is_empty()).count()
    }

    /// The first and last line of the inline `mod tests`, if there is one.
    pub(super) fn inline_tests(&self) -> Option<(usize, usize)> {
        let words =
            |at| ["mod", "tests", "{"].iter().enumerate().all(|(n, w)| self.word(at + n) == *w);
        let at = (0..self.tokens.len()).find(|at| words(*at))?;
        Some((self.line(at), self.line(self.closing(at + 2))))
    }
}

fn tokens(code: &str) -> Vec<Token> {
    let mut found: Vec<Token> = Vec::new();
    for (at, line) in code.lines().enumerate() {
        let mut rest = line.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let size = if is_word(first) {
                rest.find(|c| !is_word(c)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                first.len_utf8()
            };
            let word = rest[..size].to_owned();
            found.push(Token { word, line: at + 1 });
            rest = rest[size..].trim_start();
        }
    }
    found
}

/// Comments, strings and characters as blanks, line by line the same.
fn blank(text: &str) -> String {
    let bytes: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = literal_end(&bytes, at);
        if end == at {
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        for c in &bytes[at..end] {
            out.push(if *c == '\n' { '\n' } else { ' ' });
        }
        at = end;
    }
    out
}

/// The end of the comment, string or character that starts here, or `at` when none does.
fn literal_end(text: &[char], at: usize) -> usize {
    let is = |place: usize, c: char| text.get(place) == Some(&c);
    let in_word = at > 0 && (text[at - 1].is_ascii_alphanumeric() || text[at - 1] == '_');
    match text[at] {
        '/' if is(at + 1, '/') => {
            (at..text.len()).find(|place| is(*place, '\n')).unwrap_or(text.len())
        }
        '/' if is(at + 1, '*') => block_comment_end(text, at),
        '"' => string_end(text, at + 1),
        'b' | 'c' if !in_word && is(at + 1, '"') => string_end(text, at + 2),
        'b' if !in_word && is(at + 1, '\'') => character_end(text, at + 1),
        'r' if !in_word => raw_string_end(text, at, at + 1),
        'b' | 'c' if !in_word && is(at + 1, 'r') => raw_string_end(text, at, at + 2),
        '\'' => character_end(text, at),
        _ => at,
    }
}

fn block_comment_end(text: &[char], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0);
    while at < text.len() {
        let pair = (text[at], text.get(at + 1));
        if pair == ('/', Some(&'*')) {
            depth += 1;
            at += 2;
        } else if pair == ('*', Some(&'/')) {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

fn string_end(text: &[char], mut at: usize) -> usize {
    while at < text.len() {
        match text[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn raw_string_end(text: &[char], start: usize, hashes: usize) -> usize {
    let count = text[hashes..].iter().take_while(|c| **c == '#').count();
    if text.get(hashes + count) != Some(&'"') {
        return start;
    }
    let mut at = hashes + count + 1;
    while at < text.len() {
        let closed = text[at + 1..].iter().take(count).filter(|c| **c == '#').count() == count;
        if text[at] == '"' && closed {
            return at + 1 + count;
        }
        at += 1;
    }
    text.len()
}

/// A character's end; a lifetime is none, and stays.
fn character_end(text: &[char], start: usize) -> usize {
    if text.get(start + 1) == Some(&'\\') {
        let close = (start + 3..text.len()).find(|at| text[*at] == '\'');
        return close.map_or(text.len(), |at| at + 1);
    }
    if text.get(start + 2) == Some(&'\'') {
        return start + 3;
    }
    start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_what_is_not_code() {
        let rows = [
            ("a // use crate::x\nb", "a b"),
            ("a /* x /* y */ z */ b", "a b"),
            ("f(\"use \\\" crate\")", "f( )"),
            ("r#\"a \" b\"# c", "c"),
            ("br##\"a\"# b\"## c", "c"),
            ("'\"' x '\\'' y '\\u{7b}' z", "x y z"),
            ("b'{' x", "x"),
            ("fn f<'a>(x: &'a str) { 'b: loop {} }", "fn f<'a>(x: &'a str) { 'b: loop {} }"),
            ("super_r\"x\"", "super_r"),
        ];
        for (text, wanted) in rows {
            let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(words(&blank(text)), wanted, "{text}");
            assert_eq!(blank(text).lines().count(), text.lines().count());
        }
    }

    #[test]
    fn finds_words_braces_and_tests() {
        let file = Source::new("src/a.rs", "fn f() {\n  g::<{ 1 }>()\n}\n\nmod tests {\n  x\n}\n");
        assert_eq!(file.word(0), "fn");
        let open = file.tokens.iter().position(|token| token.word == "{").expect("it is there");
        assert_eq!(file.line(file.closing(open)), 3);
        assert_eq!(file.inline_tests(), Some((5, 7)));
        assert_eq!(file.code_lines(1, 7), 6);
    }
}
