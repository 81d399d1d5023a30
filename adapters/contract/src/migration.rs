//! Steps by which a database comes to the shape that a program needs.

/// One step of a database's shape, numbered within its owner: SQL that runs once, in a transaction.
///
/// ```
/// use resourceful_contract::Migration;
///
/// let first = Migration::new("shop", 1, "products", "CREATE TABLE products (id bigint PRIMARY KEY)");
/// assert_eq!(first.label(), "shop 0001_products");
/// ```
///
/// A migration that was applied is never applied again and must never be changed: its checksum is kept beside its
/// number. The SQL may hold several statements, and none that begins or ends a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// Whose it is; numbers of different owners do not meet.
    pub owner: String,
    /// Where it stands among those of its owner, from 1.
    pub number: u32,
    /// What it does, in a word or two.
    pub name: String,
    /// What it runs.
    pub sql: String,
}

impl Migration {
    /// A migration.
    #[must_use]
    pub fn new(
        owner: impl Into<String>,
        number: u32,
        name: impl Into<String>,
        sql: impl Into<String>,
    ) -> Self {
        Self { owner: owner.into(), number, name: name.into(), sql: sql.into() }
    }

    /// How it is called: `shop 0001_products`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} {:04}_{}", self.owner, self.number, self.name)
    }

    /// A digest of its SQL (BLAKE3), by which a change of it is found.
    #[must_use]
    pub fn checksum(&self) -> String {
        // A file that was checked out with other line ends is the same migration.
        blake3::hash(self.sql.replace("\r\n", "\n").as_bytes()).to_hex().to_string()
    }
}

/// What a database says of the migrations that a program knows; positions in the list that was asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    /// Those that were not applied before; now they are, where that was asked for.
    pub missing: Vec<usize>,
    /// Those whose SQL is another than the one that was applied. While there are any, none is applied.
    pub changed: Vec<usize>,
}
