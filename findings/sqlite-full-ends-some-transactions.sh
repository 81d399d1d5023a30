#!/usr/bin/env bash
# Whether a full SQLite database ends the transaction depends on how the failing statement is written.
#
# One would guess: SQLITE_FULL rolls the whole transaction back, as the list of such errors says ("might cause an automatic
# rollback"), or else undoes the statement alone; but the same for two statements that do the same.
# What really happens: a statement that can write one row only (INSERT … VALUES of one row, UPDATE of one id) has no journal
# of its own to be undone by, so the whole transaction is rolled back. With RETURNING, with several rows, with SELECT as its
# source or with a range as its condition the statement alone is undone, and the transaction goes on with all before it.
# A driver that counts BEGIN and ROLLBACK by itself is then one off, or is not, by the shape of the statement.
# Version: SQLite 3.51.1 (PyPI pysqlite3-binary 0.5.4.post2).
# Source: the printed answers; https://www.sqlite.org/lang_transaction.html, "Response To Errors Within A Transaction".
# Who meets it: whoever handles a full disk, and connection pools that hand a connection on after an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/python" >/dev/null
"$folder/python/bin/pip" -q install pysqlite3-binary==0.5.4.post2
seen=$("$folder/python/bin/python" - <<'PYTHON'
import pysqlite3 as sqlite

LONG = "hex(zeroblob(4000))"
print("SQLite", sqlite.sqlite_version)
for statement in [
    f"INSERT INTO items (text) VALUES ({LONG})",
    f"UPDATE items SET text = {LONG} WHERE id = 1",
    f"INSERT INTO items (text) VALUES ({LONG}) RETURNING id",
    f"INSERT INTO items (text) VALUES ('short'), ({LONG})",
    f"INSERT INTO items (text) SELECT {LONG}",
    f"UPDATE items SET text = {LONG} WHERE id > 0",
]:
    database = sqlite.connect(":memory:", isolation_level=None)
    database.execute("PRAGMA page_size = 512")
    database.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, text TEXT)")
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {pages + 3}")
    database.execute("BEGIN")
    database.execute("INSERT INTO items (text) VALUES ('before')")
    try:
        database.execute(statement).fetchall()
        outcome = "no error"
    except sqlite.Error as error:
        outcome = str(error)
    left = database.execute("SELECT count(*) FROM items").fetchone()[0]
    state = "goes on" if database.in_transaction else "has ended"
    print(f"{statement.replace(LONG, '…'):52} {outcome}; the transaction {state}, rows: {left}")
PYTHON
)
printf '%s\n' "$seen"
expected="SQLite 3.51.1
INSERT INTO items (text) VALUES (…)                  database or disk is full; the transaction has ended, rows: 0
UPDATE items SET text = … WHERE id = 1               database or disk is full; the transaction has ended, rows: 0
INSERT INTO items (text) VALUES (…) RETURNING id     database or disk is full; the transaction goes on, rows: 1
INSERT INTO items (text) VALUES ('short'), (…)       database or disk is full; the transaction goes on, rows: 1
INSERT INTO items (text) SELECT …                    database or disk is full; the transaction goes on, rows: 1
UPDATE items SET text = … WHERE id > 0               database or disk is full; the transaction goes on, rows: 1"
[[ $seen == "$expected" ]] || { echo "This is not what was seen before."; exit 1; }
