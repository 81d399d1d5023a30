//! The order of the layers: which folder may import what.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.clone(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "{folder} holds no source");
    found
}

/// The lines of code, without comments.
fn code_lines(source: &str) -> impl Iterator<Item = &str> {
    source.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// The folders and files of `src/`, from the bottom up: each may use those before it.
const LAYERS: [&str; 24] = [
    "adapter",
    "nearest",
    "clock",
    "digest",
    "error",
    "http_client",
    "access",
    "resource",
    "tables",
    "cache",
    "catalog",
    "query",
    "authz",
    "outbox",
    "audit",
    "engine",
    "events",
    "live",
    "http",
    "openapi",
    "app",
    "testing",
    "presets",
    "prelude",
];

/// The folder or file of `src/` that a source belongs to.
fn module_of(path: &Path) -> String {
    let relative = path.strip_prefix(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap();
    let first = relative.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

#[test]
fn modules_depend_only_on_lower_layers() {
    let place = |name: &str| LAYERS.iter().position(|known| *known == name);
    let mut dependencies = 0;
    for (path, source) in sources("src") {
        let part = module_of(&path);
        // The root names every module, and the documentation has none.
        if ["lib", "docs"].contains(&part.as_str()) {
            continue;
        }
        let from = place(&part).unwrap_or_else(|| panic!("ORDER does not have `{part}`"));
        for line in code_lines(&source) {
            for used in line.split("crate::").skip(1) {
                let name: String =
                    used.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                let to = place(&name)
                    .unwrap_or_else(|| panic!("{}: `{line}` uses a name of the root", path.display()));
                assert!(to <= from, "{}: `{part}` is below `{name}`", path.display());
                dependencies += usize::from(to < from);
            }
        }
    }
    assert!(dependencies > 500, "only {dependencies} uses were found");
}

#[test]
fn axum_is_used_only_by_the_http_layers() {
    let allowed = ["http", "live", "app", "openapi", "testing"];
    for (path, source) in sources("src") {
        if !allowed.contains(&module_of(&path).as_str()) {
            assert!(
                !code_lines(&source).any(|line| line.contains("axum::")),
                "{} imports axum",
                path.display()
            );
        }
    }
}

#[test]
fn drivers_are_used_only_by_their_adapter() {
    for folder in ["src", "presets", "adapters/contract/src", "adapters/memory/src"] {
        for (path, source) in sources(folder) {
            for driver in ["sqlx::", "sea_query::", "redis::"] {
                assert!(
                    !code_lines(&source).any(|line| line.replace("resourceful_redis::", "").contains(driver)),
                    "{} imports {driver}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn contract_and_adapters_depend_neither_on_http_nor_on_the_engine() {
    for folder in ["adapters/contract/src", "adapters/memory/src", "adapters/redis/src", "adapters/sql/src"] {
        for (path, source) in sources(folder) {
            for word in ["http::", "axum::", "tower::", "use resourceful::"] {
                assert!(
                    !code_lines(&source).any(|line| line.contains(word)),
                    "{} knows {word}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn only_lib_rs_uses_a_path_attribute() {
    let paths: Vec<_> = sources("src")
        .into_iter()
        .flat_map(|(path, source)| {
            code_lines(&source)
                .filter(|line| line.contains("#[path"))
                .map(|_| path.clone())
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(paths, [Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")]);
}

#[test]
fn presets_use_public_names_only() {
    for (path, source) in sources("presets") {
        for line in code_lines(&source).filter(|line| line.contains("crate::")) {
            let name = line.split("crate::").nth(1).unwrap();
            let public = name.starts_with(|first: char| first.is_uppercase() || first == '{')
                || ["access::", "adapter::", "resource::", "prelude::"]
                    .iter()
                    .any(|module| name.starts_with(module));
            assert!(public, "{}: {line}", path.display());
        }
    }
}

/// A storage runs every query that it gets. The library therefore has one type that queries storages, and it takes only
/// queries with a row filter: `GuardedStorage` takes a `GuardedQuery`, and only a `RowFilter` makes one.
#[test]
fn rows_are_read_and_written_through_the_guarded_storage() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guards = ["src/catalog/guarded_storage.rs", "src/catalog/row_filter.rs"].map(|path| root.join(path));
    let accesses = ["dyn Storage", ".storage()", "RowFilter(", "GuardedQuery("];
    // Where a declaration's storage is named, compared, migrated and given to the guarded storage, before any request.
    let setup = [
        "src/app/builder.rs",
        "src/app/migrate.rs",
        "src/catalog/link.rs",
        "src/events/webhook/mod.rs",
        "src/resource",
        "src/lib.rs",
    ]
    .map(|path| root.join(path));
    let found = |path: &Path, access: &str| {
        let source = fs::read_to_string(path).unwrap();
        code_lines(&source).any(|line| line.contains(access))
    };
    for folder in ["src", "presets"] {
        for (path, _) in sources(folder).into_iter().filter(|(path, _)| !guards.contains(path)) {
            for access in accesses {
                let is_setup = setup.iter().any(|setup| path.starts_with(setup))
                    && ["dyn Storage", ".storage()"].contains(&access);
                assert!(
                    is_setup || !found(&path, access),
                    "{} has `{access}` beside the guarded storage",
                    path.display()
                );
            }
        }
    }
    for access in ["dyn Storage", "RowFilter(", "GuardedQuery("] {
        assert!(guards.iter().any(|guard| found(guard, access)), "`{access}` is in another file now");
    }
}

/// A row filter without a restriction is for operations of the application itself, which the engine names as such.
#[test]
fn unrestricted_row_filters_are_created_only_below_the_protocols() {
    for (path, source) in sources("src").into_iter().chain(sources("presets")) {
        let is_allowed = ["catalog", "authz", "engine"]
            .iter()
            .any(|part| path.starts_with(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(part)));
        let makes = code_lines(&source).any(|line| {
            ["RowFilter::unrestricted(", "Visibilities::unrestricted("].iter().any(|made| line.contains(made))
        });
        assert!(is_allowed || !makes, "{} makes an unrestricted row filter", path.display());
    }
}

/// The path of a request that ARCHITECTURE.md describes: its functions are where it says, and no more than it allows.
#[test]
fn hops_of_a_request_are_as_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let (mut hops, mut last) = (0, Vec::new());
    for row in text.lines() {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, numbers, functions, place, ..] = cells.as_slice() else { continue };
        if *numbers == "hops" {
            last.push(0);
        }
        let Some(number) = numbers.rsplit('–').next().and_then(|number| number.parse::<usize>().ok())
        else {
            continue;
        };
        *last.last_mut().expect("a table has a head") = number;
        let place = place.trim_matches('`');
        let folder =
            if place.starts_with("adapters") { root.join(place) } else { root.join("src").join(place) };
        let code: String = match folder.is_dir() {
            true => sources(folder.strip_prefix(root).unwrap().to_str().unwrap())
                .into_iter()
                .map(|(_, code)| code)
                .collect(),
            false => fs::read_to_string(&folder).unwrap_or_else(|error| panic!("{place}: {error}")),
        };
        for function in functions.split(", ") {
            let name = function.trim_matches('`').rsplit("::").next().unwrap();
            assert!(code.contains(&format!("fn {name}")), "ARCHITECTURE.md: there is no `{name}` in {place}");
            hops += 1;
        }
    }
    let [_, list, create] = last[..] else {
        panic!("ARCHITECTURE.md has three tables of hops, not {}", last.len())
    };
    assert!(list <= 45 && create <= 55, "{list} hops of a list, {create} of a create");
    assert!(hops >= list, "only {hops} functions were found");
}
