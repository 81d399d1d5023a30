#!/usr/bin/env bash
# A collation that changes nothing keeps SQLite from using an index, inside a row value alone.
#
# One would guess: `COLLATE BINARY` on a column whose collation is BINARY already says nothing new, so a keyset page
# `(name COLLATE BINARY, id) > (?, ?)` searches the index over (name, id) as `(name, id) > (?, ?)` does, and as
# `name COLLATE BINARY > ?` does by itself.
# What really happens: by itself the operator is harmless, and so it is on the right-hand side of a row value. On a column
# on the left-hand side the comparison is no search any more: the whole table is scanned, for each page.
# Version: SQLite 3.51.1 (PyPI pysqlite3-binary 0.5.4.post2); the same with 3.40.
# Source: the printed plans; https://www.sqlite.org/rowvalue.html does not mention collations beside indexes.
# Who meets it: query builders that spell the collation of each column so that a page is compared as it is sorted.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/python" >/dev/null
"$folder/python/bin/pip" -q install pysqlite3-binary==0.5.4.post2
seen=$("$folder/python/bin/python" - <<'PYTHON'
import pysqlite3 as sqlite

database = sqlite.connect(":memory:")
database.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT NOT NULL COLLATE BINARY)")
database.execute("CREATE INDEX by_name ON items (name, id)")
print("SQLite", sqlite.sqlite_version)
for condition in [
    "(name, id) > ('m', 5)",
    "name COLLATE BINARY > 'm'",
    "(name, id) > ('m' COLLATE BINARY, 5)",
    "(name COLLATE BINARY, id) > ('m', 5)",
]:
    plan = database.execute(f"EXPLAIN QUERY PLAN SELECT id FROM items WHERE {condition}").fetchall()
    print(f"{condition:40} {plan[0][3].split()[0]}")
PYTHON
)
printf '%s\n' "$seen"
expected="SQLite 3.51.1
(name, id) > ('m', 5)                    SEARCH
name COLLATE BINARY > 'm'                SEARCH
(name, id) > ('m' COLLATE BINARY, 5)     SEARCH
(name COLLATE BINARY, id) > ('m', 5)     SCAN"
[[ $seen == "$expected" ]] || { echo "This is not what was seen before."; exit 1; }
