//! Who may do what: identities, access control lists, and quotas.
//!
//! The embedding application, or a transport that verified them, hands in a session's identities;
//! the library checks none. They are part of the replicated state, so that every decision is made
//! at apply, alike on every replica. The five rights are ZooKeeper's (Programmer's Guide,
//! "ZooKeeper access control using ACLs"): to make or delete a node is a right on its parent.

use std::{fmt, net::IpAddr, ops::BitOr, sync::Arc};

use thiserror::Error;

/// A set of ZooKeeper's five rights.
///
/// ```
/// use quorate::Rights;
/// let rights = Rights::READ | Rights::WRITE;
/// assert!(rights.contains(Rights::READ) && !rights.contains(Rights::ADMIN));
/// assert_eq!(format!("{rights:?}"), "rw");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rights(u8);

impl Rights {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// To read the node, its list of children and its ACL, and to ask guards about it.
    pub const READ: Self = Self(1);
    /// To replace the node's data.
    pub const WRITE: Self = Self(2);
    /// To make children of the node.
    pub const CREATE: Self = Self(4);
    /// To delete children of the node.
    pub const DELETE: Self = Self(8);
    /// To replace the node's ACL, and the quotas of its children.
    pub const ADMIN: Self = Self(16);
    /// All of them.
    pub const ALL: Self = Self(31);

    /// The rights with ZooKeeper's bits; `None` if there are others.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits > Self::ALL.0 {
            return None;
        }
        Some(Self(bits))
    }

    /// ZooKeeper's bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `rights` are among these.
    pub const fn contains(self, rights: Self) -> bool {
        self.0 & rights.0 == rights.0
    }
}

impl BitOr for Rights {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters = "rwcda".chars().enumerate();
        let mut held = letters.filter(|(bit, _)| self.0 & 1 << bit != 0);
        held.try_for_each(|(_, letter)| write!(f, "{letter}"))
    }
}

/// A user and what stands for the password, as ZooKeeper's `digest` scheme has it: opaque here, and
/// compared as a whole. Neither `Debug` nor a reply to somebody without
/// [`Rights::ADMIN`] shows the second part.
#[derive(Clone, PartialEq, Eq)]
pub struct DigestId {
    user: Arc<str>,
    hash: Arc<str>,
}

impl DigestId {
    /// A user, and the hash of the password, each of at most [`Acl::TEXT_BYTES_MAX`] bytes.
    ///
    /// # Errors
    ///
    /// [`AccessError::TooLong`].
    pub fn new(user: &str, hash: &str) -> Result<Self, AccessError> {
        check_text(user)?;
        check_text(hash)?;
        Ok(Self { user: user.into(), hash: hash.into() })
    }

    /// The user.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The hash; `x` where it was masked.
    pub fn hash(&self) -> &str {
        &self.hash
    }
}

impl fmt::Debug for DigestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DigestId({:?}, ..)", self.user)
    }
}

/// The subject of a certificate that somebody else has verified.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Subject(Arc<str>);

impl Subject {
    /// A subject of at most [`Acl::TEXT_BYTES_MAX`] bytes.
    ///
    /// # Errors
    ///
    /// [`AccessError::TooLong`].
    pub fn new(subject: &str) -> Result<Self, AccessError> {
        check_text(subject)?;
        Ok(Self(subject.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whom an ACL grants rights.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Principal {
    /// Everybody.
    World,
    /// Whoever sets the ACL: replaced by the digests and subjects among its identities.
    Auth,
    /// Who knows this user's password.
    Digest(DigestId),
    /// Who calls from an address that begins with the same bits.
    Ip {
        /// The address.
        addr: IpAddr,
        /// How many of its bits count: at most 32 or 128.
        bits: u8,
    },
    /// Who has this certificate.
    X509(Subject),
}

/// Who a client is, as the application has verified it.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Identity {
    /// It knows this user's password.
    Digest(DigestId),
    /// It calls from this address.
    Ip(IpAddr),
    /// It has this certificate.
    X509(Subject),
    /// It may do everything.
    Super,
}

impl Identity {
    fn is(&self, principal: &Principal) -> bool {
        match (self, principal) {
            (_, Principal::World) => true,
            (Self::Digest(own), Principal::Digest(id)) => own == id,
            (Self::X509(own), Principal::X509(subject)) => own == subject,
            (Self::Ip(own), Principal::Ip { addr, bits }) => within(*own, *addr, *bits),
            _ => false,
        }
    }

    /// What it is in an ACL that grants [`Principal::Auth`].
    fn principal(&self) -> Option<Principal> {
        match self {
            Self::Digest(id) => Some(Principal::Digest(id.clone())),
            Self::X509(subject) => Some(Principal::X509(subject.clone())),
            Self::Ip(_) | Self::Super => None,
        }
    }
}

/// All identities of a client; cheap to clone.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Identities(Option<Arc<[Identity]>>);

impl Identities {
    /// The most identities of one client.
    pub const MAX: usize = 16;

    /// Nobody in particular: what is granted to the world.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Who may do everything: [`Identity::Super`] alone.
    pub fn superuser() -> Self {
        Self(Some([Identity::Super].into()))
    }

    /// These identities.
    ///
    /// # Errors
    ///
    /// [`AccessError::TooMany`] above [`Identities::MAX`].
    pub fn new(identities: impl IntoIterator<Item = Identity>) -> Result<Self, AccessError> {
        let identities: Arc<[Identity]> = identities.into_iter().collect();
        check_count("identities", identities.len(), Self::MAX)?;
        Ok(Self(Some(identities).filter(|it| !it.is_empty())))
    }

    /// They, in the order in which they were given.
    pub fn as_slice(&self) -> &[Identity] {
        self.0.as_deref().unwrap_or(&[])
    }

    pub(crate) fn is_super(&self) -> bool {
        self.as_slice().contains(&Identity::Super)
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_slice().fmt(f)
    }
}

/// Rights of one principal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Whom.
    pub principal: Principal,
    /// What.
    pub rights: Rights,
}

/// An access control list: what it does not grant is refused. Cheap to clone.
///
/// ```
/// use quorate::{Acl, DigestId, Grant, Principal, Rights};
/// let acl = Acl::new([
///     Grant { principal: Principal::World, rights: Rights::READ },
///     Grant {
///         principal: Principal::Digest(DigestId::new("ann", "hash")?),
///         rights: Rights::ALL,
///     },
/// ])?;
/// assert!(!format!("{acl:?}").contains("hash"));
/// assert!(Acl::new([]).is_err(), "a list that grants nothing locks everybody out");
/// # Ok::<(), quorate::AccessError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acl(Arc<[Grant]>);

impl Acl {
    /// The most grants of one list.
    pub const GRANTS_MAX: usize = 64;
    /// Bytes of a user, a hash or a subject.
    pub const TEXT_BYTES_MAX: usize = 256;

    /// A list of these grants.
    ///
    /// # Errors
    ///
    /// [`AccessError`] if there are none or too many, or an address has fewer bits than are asked
    /// for.
    pub fn new(grants: impl IntoIterator<Item = Grant>) -> Result<Self, AccessError> {
        let grants: Arc<[Grant]> = grants.into_iter().collect();
        if grants.is_empty() {
            return Err(AccessError::Empty);
        }
        check_count("grants", grants.len(), Self::GRANTS_MAX)?;
        for grant in &*grants {
            if let Principal::Ip { addr, bits } = grant.principal {
                let max = if addr.is_ipv4() { 32 } else { 128 };
                check_count("bits of an address", bits.into(), max)?;
            }
        }
        Ok(Self(grants))
    }

    /// Everything for everybody: ZooKeeper's `OPEN_ACL_UNSAFE`.
    pub fn open() -> Self {
        Self([Grant { principal: Principal::World, rights: Rights::ALL }].into())
    }

    /// Everything for whoever sets it: ZooKeeper's `CREATOR_ALL_ACL`.
    pub fn creator() -> Self {
        Self([Grant { principal: Principal::Auth, rights: Rights::ALL }].into())
    }

    /// The grants, in the order in which they were given.
    pub fn grants(&self) -> &[Grant] {
        &self.0
    }

    /// Whether it grants everything to everybody, and nothing else.
    pub(crate) fn is_open(&self) -> bool {
        matches!(&*self.0, [Grant { principal: Principal::World, rights: Rights::ALL }])
    }

    /// Whether a client with these identities has all of these rights, each by any grant.
    pub(crate) fn allows(&self, who: &Identities, rights: Rights) -> bool {
        let is_theirs = |grant: &&Grant| {
            grant.principal == Principal::World
                || who.as_slice().iter().any(|identity| identity.is(&grant.principal))
        };
        let theirs = self.0.iter().filter(is_theirs);
        let granted = theirs.fold(Rights::NONE, |all, grant| all | grant.rights);
        who.is_super() || granted.contains(rights)
    }

    /// The list as it is kept: [`Principal::Auth`] is replaced. `None` if nobody is left of it, or
    /// too many are.
    pub(crate) fn resolve(&self, who: &Identities) -> Option<Self> {
        if self.0.iter().all(|grant| grant.principal != Principal::Auth) {
            return Some(self.clone());
        }
        let mut grants = Vec::new();
        for grant in &*self.0 {
            if grant.principal != Principal::Auth {
                grants.push(grant.clone());
                continue;
            }
            let before = grants.len();
            let own = who.as_slice().iter().filter_map(Identity::principal);
            grants.extend(own.map(|principal| Grant { principal, rights: grant.rights }));
            if grants.len() == before {
                return None;
            }
        }
        Self::new(grants).ok()
    }

    /// The list as it is shown to somebody who must not set it.
    pub(crate) fn masked(&self) -> Self {
        let masked = |grant: &Grant| match &grant.principal {
            Principal::Digest(id) => {
                let id = DigestId { user: Arc::clone(&id.user), hash: "x".into() };
                Grant { principal: Principal::Digest(id), rights: grant.rights }
            }
            _ => grant.clone(),
        };
        Self(self.0.iter().map(masked).collect())
    }

    /// What it counts for against limits.
    pub(crate) fn bytes(&self) -> usize {
        let text = |grant: &Grant| match &grant.principal {
            Principal::Digest(id) => id.user.len() + id.hash.len(),
            Principal::X509(subject) => subject.0.len(),
            Principal::World | Principal::Auth | Principal::Ip { .. } => 0,
        };
        self.0.iter().map(|grant| GRANT_BYTES + text(grant)).sum()
    }

    /// The most that [`bytes`](Self::bytes) gives.
    pub(crate) const BYTES_MAX: usize = Self::GRANTS_MAX * (GRANT_BYTES + 2 * Self::TEXT_BYTES_MAX);
}

/// Bounds of a subtree: the node that it is set on, and everything below it.
///
/// Past a hard bound what would add is refused. A soft one refuses nothing: whoever looks at the
/// quota and its usage learns whether it [is passed](Usage::warns). Lists of rights count in no
/// bound of bytes. Whoever may delete and make the node anew gets rid of its quota, too: it is the
/// node's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Quota {
    /// The most nodes.
    pub nodes_hard: Option<u64>,
    /// The most bytes of data.
    pub bytes_hard: Option<u64>,
    /// The most nodes without a warning.
    pub nodes_soft: Option<u64>,
    /// The most bytes of data without a warning.
    pub bytes_soft: Option<u64>,
}

/// What a subtree with a [`Quota`] holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Nodes, the topmost one among them.
    pub nodes: u64,
    /// Bytes of data.
    pub bytes: u64,
}

impl Usage {
    /// Whether it is past a soft bound.
    pub fn warns(&self, quota: &Quota) -> bool {
        quota.nodes_soft.is_some_and(|max| self.nodes > max)
            || quota.bytes_soft.is_some_and(|max| self.bytes > max)
    }
}

/// Why an access control list or a list of identities is none.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
#[non_exhaustive]
pub enum AccessError {
    /// A list that grants nothing locks everybody out.
    #[error("an access control list has at least one grant")]
    Empty,
    /// There are more than can be.
    #[error("{value} {what}, and {max} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        value: usize,
        /// How many are allowed.
        max: usize,
    },
    /// A text is too long.
    #[error("a text of {value} bytes, and {max} are allowed")]
    TooLong {
        /// Its length.
        value: usize,
        /// What is allowed.
        max: usize,
    },
}

fn check_count(what: &'static str, value: usize, max: usize) -> Result<(), AccessError> {
    if value > max {
        return Err(AccessError::TooMany { what, value, max });
    }
    Ok(())
}

fn check_text(text: &str) -> Result<(), AccessError> {
    let (value, max) = (text.len(), Acl::TEXT_BYTES_MAX);
    if value > max {
        return Err(AccessError::TooLong { value, max });
    }
    Ok(())
}

/// Whether two addresses of one kind begin with the same bits.
fn within(own: IpAddr, addr: IpAddr, bits: u8) -> bool {
    let bits = u32::from(bits);
    let same = |differing: u128, width: u32| match width.checked_sub(bits) {
        Some(rest) => differing.checked_shr(rest).unwrap_or(0) == 0,
        None => false,
    };
    match (own, addr) {
        (IpAddr::V4(own), IpAddr::V4(addr)) => same((own.to_bits() ^ addr.to_bits()).into(), 32),
        (IpAddr::V6(own), IpAddr::V6(addr)) => same(own.to_bits() ^ addr.to_bits(), 128),
        _ => false,
    }
}

/// About what a grant takes beyond its texts.
const GRANT_BYTES: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_bit_by_bit() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (own, addr, bits, expected) in [
            ("10.1.2.3", "10.1.2.3", 32, true),
            ("10.1.2.3", "10.1.2.2", 32, false),
            ("10.1.2.3", "10.1.2.2", 31, true),
            ("10.1.2.3", "10.1.0.0", 16, true),
            ("10.1.2.3", "10.2.0.0", 16, false),
            ("10.1.2.3", "99.9.9.9", 0, true),
            ("fe80::1", "fe80::", 64, true),
            ("fe80::1", "fe80::", 128, false),
            ("fe81::1", "fe80::", 16, false),
            ("::1", "::", 0, true),
            ("10.1.2.3", "::", 0, false),
            ("::1", "0.0.0.0", 0, false),
        ] {
            assert_eq!(within(ip(own), ip(addr), bits), expected, "{own} {addr}/{bits}");
        }
    }

    #[test]
    fn rights_of_several_grants_add_up() {
        let ann = DigestId::new("ann", "hash").unwrap();
        let (read, write) = (Rights::READ, Rights::WRITE);
        let grants = [(Principal::World, read), (Principal::Digest(ann.clone()), write)];
        let acl = Acl::new(grants.map(|(principal, rights)| Grant { principal, rights })).unwrap();
        let ann = Identities::new([Identity::Digest(ann)]).unwrap();
        assert!(acl.allows(&ann, read | write) && acl.allows(&Identities::none(), read));
        assert!(!acl.allows(&Identities::none(), read | write));
        assert!(!acl.allows(&ann, read | write | Rights::ADMIN));
    }

    #[test]
    fn every_bound_is_refused_with_its_value() {
        let long = "x".repeat(257);
        let too_long = AccessError::TooLong { value: 257, max: 256 };
        assert_eq!(DigestId::new(&long, ""), Err(too_long.clone()));
        assert_eq!(DigestId::new("", &long), Err(too_long.clone()));
        assert_eq!(Subject::new(&long), Err(too_long));
        let grant = Grant { principal: Principal::World, rights: Rights::READ };
        let many = Acl::new(vec![grant; 65]);
        assert_eq!(many, Err(AccessError::TooMany { what: "grants", value: 65, max: 64 }));
        assert_eq!(Acl::new([]), Err(AccessError::Empty));
        for (addr, max) in [("10.0.0.1", 32), ("::1", 128)] {
            let (addr, bits) = (addr.parse().unwrap(), max as u8 + 1);
            let principal = Principal::Ip { addr, bits };
            let (what, value) = ("bits of an address", max + 1);
            let refused = Err(AccessError::TooMany { what, value, max });
            assert_eq!(Acl::new([Grant { principal, rights: Rights::READ }]), refused);
        }
        let many = Identities::new(vec![Identity::Super; 17]);
        assert_eq!(many, Err(AccessError::TooMany { what: "identities", value: 17, max: 16 }));
    }

    #[test]
    fn the_creator_is_who_is_verified_and_at_least_one() {
        let id = |user| DigestId::new(user, "secret").unwrap();
        let (ann, bob) = (Identity::Digest(id("ann")), Identity::Digest(id("bob")));
        let ip = Identity::Ip("10.0.0.1".parse().unwrap());
        let who = Identities::new([ann, ip.clone(), bob]).unwrap();
        let kept = Acl::creator().resolve(&who).unwrap();
        let principals: Vec<_> = kept.grants().iter().map(|it| it.principal.clone()).collect();
        assert_eq!(principals, [Principal::Digest(id("ann")), Principal::Digest(id("bob"))]);
        let nobody = [Identities::none(), Identities::new([ip, Identity::Super]).unwrap()];
        assert!(nobody.iter().all(|who| Acl::creator().resolve(who).is_none()));
        assert_eq!(Acl::open().resolve(&nobody[0]), Some(Acl::open()));
        for text in [format!("{kept:?}"), format!("{who:?}"), format!("{:?}", kept.masked())] {
            assert!(text.contains("ann") && !text.contains("secret"), "{text}");
        }
        assert!(kept.masked().grants().iter().all(|grant| {
            matches!(&grant.principal, Principal::Digest(id) if id.hash() == "x")
        }));
    }
}
