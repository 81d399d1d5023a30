//! What a database refuses by rules of its own, and which fields the refusal names.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use resourceful_contract::{
    Change, ChangeSet, ErrorKind, Field, FieldType, Guard, IdSource, Migration, Schema, Storage,
    StorageError, Value, Version, Write,
};

use crate::support::TestDatabase;

/// A storage, and a table that was made by hand.
struct BoundTable {
    storage: Arc<dyn Storage>,
    schema: Arc<Schema>,
}

const ID: usize = 0;
const CODE: usize = 1;
const PRICE: usize = 2;
const FROM: usize = 3;
const UNTIL: usize = 4;

async fn bind_table(test_db: &TestDatabase, statements: &str) -> BoundTable {
    let storage = test_db.connect().await.storage();
    let mut version = Field::new("version", FieldType::Integer);
    version.read_only = true;
    let mut code = Field::new("code", FieldType::Text).nullable();
    code.column = "item code".to_owned();
    let fields = vec![
        Field::new("id", FieldType::Integer),
        code,
        Field::new("price", FieldType::Decimal).nullable(),
        Field::new("from_day", FieldType::Integer).nullable(),
        Field::new("until_day", FieldType::Integer).nullable(),
        version,
    ];
    let mut schema = Schema::new("items", &test_db.table("items"), fields, ID, IdSource::Client);
    schema.version = Some(5);
    let statements = statements.replace("{table}", &schema.table);
    storage.migrate(&[Migration::new(&test_db.prefix, 1, "items", statements)], true).await.unwrap();
    BoundTable { storage, schema: Arc::new(schema) }
}

impl BoundTable {
    fn insert(&self, id: i64, given: &[(usize, Value)]) -> Change {
        let mut values = vec![Value::Null; self.schema.fields.len()];
        values[ID] = Value::Integer(id);
        for (field, value) in given {
            values[*field] = value.clone();
        }
        self.change(Write::Insert { values })
    }

    fn update(&self, id: i64, set: &[(usize, Value)], version: i64) -> Change {
        let guard = Guard::version(Version::Counter(version));
        self.change(Write::Update { id: Value::Integer(id), set: set.to_vec(), guard })
    }

    fn change(&self, write: Write) -> Change {
        Change { schema: self.schema.clone(), write, answer: None }
    }

    /// The refusal of a change by itself, among others, and in an insert of several rows: the same each time.
    async fn rejection(&self, change: Change) -> (ErrorKind, Vec<String>) {
        let alone = self.storage.commit(ChangeSet::one(change.clone())).await.unwrap_err();
        let others = [self.insert(100, &[]), change.clone(), self.insert(101, &[])];
        let among = self.storage.commit(ChangeSet::of(others.to_vec())).await.unwrap_err();
        assert_eq!(among.change(), Some(1), "{among}");
        let found = |error: &StorageError| (error.kind(), error.fields().to_vec());
        assert_eq!(found(&among), found(&alone), "{among}");
        found(&alone)
    }

    async fn commit(&self, change: Change) {
        self.storage.commit(ChangeSet::one(change)).await.unwrap();
    }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn decimal(text: &str) -> Value {
    FieldType::Decimal.parse(text).unwrap()
}

fn rejected_fields(fields: &[&str]) -> (ErrorKind, Vec<String>) {
    (ErrorKind::Rejected, fields.iter().map(|field| (*field).to_owned()).collect())
}

#[cfg(feature = "sqlite")]
const SQLITE: &str = r#"
    CREATE TABLE {table} (id INTEGER PRIMARY KEY,
      "item code" TEXT CONSTRAINT short CHECK (length("item code") <= 5 OR "item code" = 'price'),
      price TEXT CHECK (price IS NULL OR price + 0 < 100), from_day INTEGER, until_day INTEGER,
      version INTEGER NOT NULL DEFAULT 1, CONSTRAINT days CHECK (from_day <= until_day));
    CREATE TRIGGER {table}_abort BEFORE INSERT ON {table} WHEN NEW."item code" = 'abort'
      BEGIN SELECT RAISE(ABORT, 'the text of the owner'); END;
    CREATE TRIGGER {table}_ignore BEFORE INSERT ON {table} WHEN NEW."item code" = 'none'
      BEGIN SELECT RAISE(IGNORE); END;
    CREATE TRIGGER {table}_keep BEFORE UPDATE ON {table} WHEN NEW."item code" = 'none'
      BEGIN SELECT RAISE(IGNORE); END;
    CREATE TRIGGER {table}_stay BEFORE DELETE ON {table} WHEN OLD."item code" = 'stay'
      BEGIN SELECT RAISE(IGNORE); END"#;

#[cfg(feature = "postgres")]
const POSTGRES: &str = r#"
    CREATE DOMAIN {table}_price AS numeric(5, 2) CHECK (VALUE < 100);
    CREATE TABLE {table} (id bigint PRIMARY KEY, "item code" varchar(5), price {table}_price,
      from_day integer, until_day integer, version bigint NOT NULL DEFAULT 1,
      CONSTRAINT days CHECK (from_day <= until_day),
      EXCLUDE USING gist (int8range(from_day, until_day, '[]') WITH &&) WHERE (from_day > 0));
    CREATE FUNCTION {table}_rules() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF TG_OP = 'DELETE' THEN
        IF OLD."item code" = 'stay' THEN RETURN NULL; END IF;
        RETURN OLD;
      END IF;
      IF NEW."item code" = 'abort' THEN RAISE EXCEPTION 'the text of the owner'; END IF;
      IF NEW."item code" = 'own' THEN RAISE EXCEPTION 'own' USING ERRCODE = 'SHOP1', COLUMN = 'item code'; END IF;
      IF NEW."item code" = 'none' THEN RETURN NULL; END IF;
      RETURN NEW; END $$;
    CREATE TRIGGER rules BEFORE INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_rules()"#;

/// Every database with its rules.
fn databases_with_rules() -> Vec<(TestDatabase, &'static str)> {
    let mut test_dbs = Vec::new();
    #[cfg(feature = "sqlite")]
    test_dbs.extend([(TestDatabase::sqlite_file(), SQLITE), (TestDatabase::sqlite_memory(), SQLITE)]);
    #[cfg(feature = "postgres")]
    test_dbs.extend(TestDatabase::postgres("rules of a database").map(|test_db| (test_db, POSTGRES)));
    test_dbs
}

#[tokio::test]
async fn check_violation_names_fields() {
    for (test_db, rules) in databases_with_rules() {
        let bound = bind_table(&test_db, rules).await;
        bound.commit(bound.insert(1, &[(FROM, Value::Integer(-9)), (UNTIL, Value::Integer(-8))])).await;
        for (given, fields) in [
            (vec![(CODE, text("abcdef"))], vec!["code"]),
            (vec![(PRICE, decimal("100.5")), (CODE, text("abc"))], vec!["price"]),
            (vec![(FROM, Value::Integer(-3)), (UNTIL, Value::Integer(-4))], vec!["from_day", "until_day"]),
        ] {
            assert_eq!(bound.rejection(bound.insert(2, &given)).await, rejected_fields(&fields), "{given:?}");
            assert_eq!(
                bound.rejection(bound.update(1, &given, 1)).await,
                rejected_fields(&fields),
                "{given:?}"
            );
        }
        // Of a rule about two fields, the one that was changed.
        let until = [(UNTIL, Value::Integer(-10))];
        assert_eq!(bound.rejection(bound.update(1, &until, 1)).await, rejected_fields(&["until_day"]));
        bound.commit(bound.update(1, &[(CODE, text("abcde"))], 1)).await;
    }
}

#[tokio::test]
async fn trigger_errors_and_skips_are_rejected() {
    for (test_db, rules) in databases_with_rules() {
        let bound = bind_table(&test_db, rules).await;
        bound.commit(bound.insert(1, &[(CODE, text("stay"))])).await;
        for code in ["abort", "none"] {
            assert_eq!(
                bound.rejection(bound.insert(2, &[(CODE, text(code))])).await,
                rejected_fields(&[]),
                "{code}"
            );
        }
        assert_eq!(bound.rejection(bound.update(1, &[(CODE, text("none"))], 1)).await, rejected_fields(&[]));
        // Left out in an insert that answers no rows, too.
        let all = (10..20).map(|id| bound.insert(id, &[(CODE, text(if id == 15 { "none" } else { "a" }))]));
        let left_out = bound.storage.commit(ChangeSet::of(all.collect())).await.unwrap_err();
        assert_eq!((left_out.kind(), left_out.change()), (ErrorKind::Rejected, Some(5)), "{left_out}");
        for version in [Some(Version::Counter(1)), None] {
            let guard = Guard { version, ..Guard::none() };
            let delete = bound.change(Write::Delete { id: Value::Integer(1), guard });
            assert_eq!(bound.rejection(delete).await, rejected_fields(&[]));
        }
        // A row that has another version is that, and none that was left out.
        let stale = bound.storage.commit(ChangeSet::one(bound.update(1, &[(CODE, text("b"))], 7))).await;
        assert_eq!(stale.unwrap_err().kind(), ErrorKind::VersionMismatch);
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn postgres_specific_violations_are_mapped() {
    let Some(test_db) = TestDatabase::postgres("kinds of refusals") else { return };
    let bound = bind_table(&test_db, POSTGRES).await;
    let days = |from, until| [(FROM, Value::Integer(from)), (UNTIL, Value::Integer(until))];
    bound.commit(bound.insert(1, &days(5, 9))).await;
    let both = vec!["from_day".to_owned(), "until_day".to_owned()];
    assert_eq!(bound.rejection(bound.insert(2, &days(8, 12))).await, (ErrorKind::ExclusionViolation, both));
    let own = bound.insert(2, &[(CODE, text("own"))]);
    assert_eq!(bound.rejection(own).await, rejected_fields(&["code"]));
    for (field, value) in [(FROM, Value::Integer(1 << 40)), (PRICE, decimal("1000000.5"))] {
        let name = bound.schema.fields[field].name.clone();
        assert_eq!(bound.rejection(bound.insert(2, &[(field, value)])).await, rejected_fields(&[&name]));
    }
}
