//! Database migrations: numbered steps of a database schema.

/// One schema migration, numbered within its owner: SQL that runs once, in a transaction.
///
/// ```
/// use resourceful_contract::Migration;
///
/// let first = Migration::new("shop", 1, "products", "CREATE TABLE products (id bigint PRIMARY KEY)");
/// assert_eq!(first.label(), "shop 0001_products");
/// ```
///
/// An applied migration is never applied again and must never be changed: its checksum is stored with its number. The SQL
/// may hold several statements, but none that begins or ends a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The owner, within which numbers are unique.
    pub owner: String,
    /// Its number among the owner's migrations, from 1.
    pub number: u32,
    /// A short description in a word or two.
    pub name: String,
    /// The SQL statements.
    pub sql: String,
}

impl Migration {
    /// A migration with these parts.
    #[must_use]
    pub fn new(
        owner: impl Into<String>,
        number: u32,
        name: impl Into<String>,
        sql: impl Into<String>,
    ) -> Self {
        Self { owner: owner.into(), number, name: name.into(), sql: sql.into() }
    }

    /// The display name: `shop 0001_products`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} {:04}_{}", self.owner, self.number, self.name)
    }

    /// A digest of the SQL (BLAKE3), by which changes to it are detected.
    #[must_use]
    pub fn checksum(&self) -> String {
        // Line endings are normalized: a file that was checked out with others is the same migration.
        blake3::hash(self.sql.replace("\r\n", "\n").as_bytes()).to_hex().to_string()
    }
}

/// The state of known migrations in a database, as positions in the list that was passed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Migrated {
    /// Migrations that were not applied before; with `apply`, they are now.
    pub missing: Vec<usize>,
    /// Migrations whose SQL differs from what was applied. While there are any, none is applied.
    pub changed: Vec<usize>,
}
