//! Checked paths of znodes.
//!
//! The rules are those of ZooKeeper (Programmer's Guide, "The ZooKeeper Data Model"; `PathUtils`).

use std::{borrow::Borrow, fmt, str, sync::Arc};

use thiserror::Error;

/// The path of a znode: absolute, separated by `/`, checked, cheap to clone.
///
/// ```
/// use quorate::Path;
/// let path: Path = "/app/config".parse()?;
/// assert_eq!(path.parent().map(|p| p.to_string()), Some("/app".to_string()));
/// assert_eq!(path.name(), "config");
/// assert!("/app/../etc".parse::<Path>().is_err());
/// # Ok::<(), quorate::PathError>(())
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Arc<str>);

impl Path {
    /// The longest path, in bytes.
    pub const BYTES_MAX: usize = 4096;

    /// The root, `/`.
    pub fn root() -> Self {
        Self(Arc::from("/"))
    }

    /// Checks `text` by ZooKeeper's rules.
    ///
    /// # Errors
    ///
    /// [`PathError`] names the rule that `text` breaks, and where.
    pub fn new(text: &str) -> Result<Self, PathError> {
        check(text)?;
        Ok(Self(Arc::from(text)))
    }

    /// Checks bytes that came from a peer, a client or a disk.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, PathError> {
        let text = str::from_utf8(bytes)
            .map_err(|error| PathError::NotUtf8 { at: error.valid_up_to() })?;
        Self::new(text)
    }

    /// Checks the path of a sequential node before its number is appended: it may end in `/`.
    ///
    /// # Errors
    ///
    /// As [`Path::new`], after the sequence suffix is appended.
    pub fn sequential_prefix(text: &str) -> Result<PathPrefix, PathError> {
        check(&format!("{text}0000000000"))?;
        Ok(PathPrefix(Arc::from(text)))
    }

    /// This path with `name` below it.
    ///
    /// # Errors
    ///
    /// [`PathError`] when `name` is empty, has a `/`, or breaks another rule.
    pub fn join(&self, name: &str) -> Result<Self, PathError> {
        if name.is_empty() {
            return Err(PathError::EmptyName);
        }
        if let Some(at) = name.find('/') {
            return Err(PathError::Slash { at });
        }
        Self::new(&format!("{}/{name}", self.0.trim_end_matches('/')))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// The path above, or `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        self.parent_str().map(|parent| Self(Arc::from(parent)))
    }

    /// The text of the path above, or `None` for the root.
    pub fn parent_str(&self) -> Option<&str> {
        above(&self.0)
    }

    /// Its own text, and those of the paths above it up to the root.
    pub(crate) fn upward(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.as_str()), |text| above(text))
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &str {
        match self.0.rfind('/') {
            Some(at) => &self.0[at + 1..],
            None => "",
        }
    }

    /// Whether `other` is this path or lies below it.
    pub fn contains(&self, other: &Self) -> bool {
        if self.is_root() || self == other {
            return true;
        }
        other.0.strip_prefix(&*self.0).is_some_and(|rest| rest.starts_with('/'))
    }

    pub(crate) fn shared(&self) -> &Arc<str> {
        &self.0
    }

    pub(crate) fn from_shared_checked(text: Arc<str>) -> Self {
        debug_assert!(check(&text).is_ok(), "the text was checked when it entered the tree");
        Self(text)
    }
}

impl str::FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Self::new(text)
    }
}

impl TryFrom<&str> for Path {
    type Error = PathError;

    fn try_from(text: &str) -> Result<Self, PathError> {
        Self::new(text)
    }
}

impl AsRef<str> for Path {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// It is ordered and hashed as its text.
impl Borrow<str> for Path {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// What stands before the number of a sequential node; unlike a [`Path`] it may end in `/`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathPrefix(Arc<str>);

impl PathPrefix {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parent of the node to be made.
    pub fn parent_str(&self) -> &str {
        match self.0.rfind('/') {
            Some(0) | None => "/",
            Some(at) => &self.0[..at],
        }
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, PathError> {
        let text = str::from_utf8(bytes)
            .map_err(|error| PathError::NotUtf8 { at: error.valid_up_to() })?;
        Path::sequential_prefix(text)
    }
}

/// The longest paths leave no room for a number: creating a sequential node there is refused.
impl From<Path> for PathPrefix {
    fn from(path: Path) -> Self {
        Self(path.0)
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Which of ZooKeeper's path rules a text breaks; `at` is a byte offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum PathError {
    /// A path has at least one character.
    #[error("a path is not empty")]
    Empty,
    /// A path is absolute.
    #[error("a path starts with '/'")]
    Relative,
    /// Only the root ends in `/`.
    #[error("a path does not end in '/'")]
    TrailingSlash,
    /// No component is empty.
    #[error("the path has an empty component at byte {at}")]
    EmptyComponent {
        /// Where it would stand.
        at: usize,
    },
    /// `.` and `..` are not components.
    #[error("the path has a relative component at byte {at}")]
    RelativeComponent {
        /// Where it stands.
        at: usize,
    },
    /// A name has at least one character.
    #[error("a name is not empty")]
    EmptyName,
    /// A name has no `/`.
    #[error("the name has a '/' at byte {at}")]
    Slash {
        /// Where it stands.
        at: usize,
    },
    /// Control characters, private use and specials are refused, as ZooKeeper does.
    #[error("the path has the character U+{character:04X} at byte {at}, which is not allowed")]
    Character {
        /// Where it stands.
        at: usize,
        /// Its code point.
        character: u32,
    },
    /// A path is UTF-8.
    #[error("the path is not UTF-8 from byte {at} on")]
    NotUtf8 {
        /// The first bad byte.
        at: usize,
    },
    /// A path is not longer than [`Path::BYTES_MAX`].
    #[error("the path has {bytes} bytes; the limit is {max}", max = Path::BYTES_MAX)]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

fn above(text: &str) -> Option<&str> {
    match text.rfind('/') {
        _ if text.len() == 1 => None,
        Some(0) | None => Some("/"),
        Some(at) => Some(&text[..at]),
    }
}

fn check(text: &str) -> Result<(), PathError> {
    if text.len() > Path::BYTES_MAX {
        return Err(PathError::TooLong { bytes: text.len() });
    }
    if text.is_empty() {
        return Err(PathError::Empty);
    }
    if !text.starts_with('/') {
        return Err(PathError::Relative);
    }
    if text.len() == 1 {
        return Ok(());
    }
    if text.ends_with('/') {
        return Err(PathError::TrailingSlash);
    }
    let mut at = 1;
    for component in text[1..].split('/') {
        match component {
            "" => return Err(PathError::EmptyComponent { at }),
            "." | ".." => return Err(PathError::RelativeComponent { at }),
            _ => {}
        }
        if !component.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            check_characters(component, at)?;
        }
        at += component.len() + 1;
    }
    Ok(())
}

fn check_characters(component: &str, start: usize) -> Result<(), PathError> {
    for (offset, character) in component.char_indices() {
        let refused = matches!(character,
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{e000}'..='\u{f8ff}'
            | '\u{fff0}'..='\u{ffff}');
        if refused {
            let character = u32::from(character);
            return Err(PathError::Character { at: start + offset, character });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of ZooKeeper's `PathUtilsTest`.
    #[test]
    fn zookeepers_path_rules() {
        for good in [
            "/",
            "/this is / a valid/path",
            "/name/with.period.",
            "/test\u{20}",
            "/a/.b",
            "/a..b",
            "/...",
            "/\u{e9}t\u{e9}",
            "/\u{10000}",
        ] {
            assert!(Path::new(good).is_ok(), "{good:?}");
        }
        for (bad, error) in [
            ("", PathError::Empty),
            ("not/absolute", PathError::Relative),
            ("/ends/with/slash/", PathError::TrailingSlash),
            ("/double//slash", PathError::EmptyComponent { at: 8 }),
            ("/single/./period", PathError::RelativeComponent { at: 8 }),
            ("/double/../period", PathError::RelativeComponent { at: 8 }),
            ("/test\0", PathError::Character { at: 5, character: 0 }),
            ("/test\u{1f}", PathError::Character { at: 5, character: 0x1f }),
            ("/test\u{7f}", PathError::Character { at: 5, character: 0x7f }),
            ("/test\u{9f}", PathError::Character { at: 5, character: 0x9f }),
            ("/test\u{f8ff}", PathError::Character { at: 5, character: 0xf8ff }),
            ("/test\u{fff0}", PathError::Character { at: 5, character: 0xfff0 }),
        ] {
            assert_eq!(Path::new(bad), Err(error), "{bad:?}");
        }
        assert!(matches!(
            Path::new(&format!("/{}", "x".repeat(Path::BYTES_MAX))),
            Err(PathError::TooLong { bytes: 4097 })
        ));
        assert_eq!(Path::from_bytes(b"/a\xff"), Err(PathError::NotUtf8 { at: 2 }));
    }

    #[test]
    fn parents_names_and_subtrees() {
        let path = Path::new("/a/b").expect("valid");
        assert_eq!(path.parent_str(), Some("/a"));
        assert_eq!(Path::new("/a").expect("valid").parent_str(), Some("/"));
        assert_eq!(Path::root().parent_str(), None);
        assert_eq!(path.name(), "b");
        assert!(Path::root().contains(&path));
        assert!(Path::new("/a").expect("valid").contains(&path));
        assert!(Path::new("/a/").is_err());
        assert!(!Path::new("/a/b").expect("valid").contains(&Path::new("/a/bc").expect("valid")));
        assert_eq!(Path::root().join("x").expect("valid").as_str(), "/x");
        assert_eq!(path.join("c/d"), Err(PathError::Slash { at: 1 }));
        assert!(Path::sequential_prefix("/locks/").is_ok());
        assert_eq!(Path::sequential_prefix("/locks/").expect("valid").parent_str(), "/locks");
        assert!(Path::sequential_prefix("/a//").is_err());
    }
}
