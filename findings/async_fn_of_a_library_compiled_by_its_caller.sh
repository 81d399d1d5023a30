#!/usr/bin/env bash
# The body of a library's `pub async fn`, generic or not, is compiled again in every crate that awaits it.
#
# One would guess: a public function without type parameters is compiled once, in its own crate, async or not; a program that
# calls it compiles a call.
# What really happens: the body of a plain function is in the library's object file and the caller has a reference to it. The
# body of an async function is a coroutine, which is compiled where it is polled: the caller's object file holds it, and with
# it all generic code that it reaches, such as a whole HTTP server. A function that is not inlined and returns
# `Pin<Box<dyn Future>>` of the same coroutine keeps the body in the library, and the caller compiles a call again.
# Version: rustc 1.95.0.
# Source: `nm` of the caller's object file, printed below.
# Who meets it: authors of async libraries whose users wait for every edit: behind one boxed call of a server's `serve`, a
# program of 40 models was built from 9,000 functions in place of 17,600.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
rustup toolchain list | grep -q '^1.95.0' || rustup toolchain install 1.95.0 --profile minimal >/dev/null 2>&1
compile() { rustc +1.95.0 --edition 2024 -C opt-level=0 "$@"; }
cat >library.rs <<'RUST'
use std::future::Future;
use std::pin::Pin;

fn step(text: &str) -> usize { text.split('/').map(str::len).sum() }

pub fn plain(text: String) -> usize { step(&text) }

pub async fn awaited(text: String) -> usize {
    std::future::ready(()).await;
    step(&text)
}

async fn hidden(text: String) -> usize {
    std::future::ready(()).await;
    step(&text)
}

#[inline(never)]
pub fn boxed(text: String) -> Pin<Box<dyn Future<Output = usize> + Send>> { Box::pin(hidden(text)) }
RUST
cat >caller.rs <<'RUST'
pub async fn all(text: String) -> usize {
    library::plain(text.clone()) + library::awaited(text.clone()).await + library::boxed(text).await
}

pub fn poll(context: &mut std::task::Context<'_>) -> bool {
    std::future::Future::poll(Box::pin(all("a/b".to_owned())).as_mut(), context).is_ready()
}
RUST
compile --crate-type rlib --crate-name library library.rs
compile --crate-type rlib --crate-name caller --extern library=liblibrary.rlib --emit obj -o caller.o caller.rs
for name in plain awaited hidden; do
    if nm --defined-only --demangle caller.o | grep -q "library::$name"; then place=caller; else place=library; fi
    printf '%-8s is compiled in the %s\n' "$name" "$place"
done | tee seen
diff seen - <<'SEEN'
plain    is compiled in the library
awaited  is compiled in the caller
hidden   is compiled in the library
SEEN
