//! The four-letter words: what may be asked of a server without being a client of it.

use std::collections::BTreeSet;

macro_rules! words {
    ($($(#[$doc:meta])* $one:ident = $letters:literal,)*) => {
        /// A question of four letters, sent instead of the first packet.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
        #[non_exhaustive]
        pub enum Word {
            $($(#[$doc])* $one,)*
        }

        impl Word {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$one,)*];

            /// Its letters.
            pub const fn letters(self) -> &'static str {
                match self {
                    $(Self::$one => $letters,)*
                }
            }
        }
    };
}

words! {
    /// How the server is set up.
    Conf = "conf",
    /// The connections.
    Cons = "cons",
    /// Sets what is counted of each connection back to zero.
    Crst = "crst",
    /// How large the log and the snapshots are.
    Dirs = "dirs",
    /// The sessions, and the ephemeral nodes that they own.
    Dump = "dump",
    /// The machine and the process.
    Envi = "envi",
    /// Which traces are written: none.
    Gtmk = "gtmk",
    /// What the state comes to.
    Hash = "hash",
    /// Whether the server serves writes.
    Isro = "isro",
    /// All numbers, a name and a value in each line.
    Mntr = "mntr",
    /// Whether the server lives.
    Ruok = "ruok",
    /// The server in a few lines.
    Srvr = "srvr",
    /// Sets what is counted of the server back to zero.
    Srst = "srst",
    /// As [`Word::Srvr`], with the connections.
    Stat = "stat",
    /// The watches of each session.
    Wchc = "wchc",
    /// The sessions that watch each path.
    Wchp = "wchp",
    /// How many watches there are.
    Wchs = "wchs",
}

impl Word {
    /// The one with these letters.
    ///
    /// ```
    /// use quorate::zookeeper::Word;
    /// assert_eq!(Word::from_letters("mntr"), Some(Word::Mntr));
    /// assert_eq!(Word::from_letters("nope"), None);
    /// ```
    pub fn from_letters(letters: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|word| word.letters() == letters)
    }

    /// As `4lw.commands.whitelist` names them: `*` for all, else letters between commas. `None` if
    /// one is not known.
    ///
    /// ```
    /// use quorate::zookeeper::Word;
    /// let words = Word::list("srvr, ruok").expect("known");
    /// assert!(words.contains(&Word::Ruok) && words.len() == 2);
    /// ```
    pub fn list(names: &str) -> Option<BTreeSet<Self>> {
        let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        let mut words = BTreeSet::new();
        for name in names {
            match name {
                "*" => words.extend(Self::ALL),
                name => drop(words.insert(Self::from_letters(name)?)),
            }
        }
        Some(words)
    }

    /// Whether it is answered by whoever lives, also without a leader.
    pub(super) fn asks_nobody(self) -> bool {
        matches!(self, Self::Ruok | Self::Envi | Self::Gtmk)
    }
}
