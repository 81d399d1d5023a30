# The examples as their readers run them: started, asked what they print, stopped.
# shellcheck shell=bash disable=SC2154

example= # its name, process, address, and what it printed
example_pid=
example_base=
example_out=
atlas_token=token-of-tests

answers() { curl -sf -o /dev/null --max-time 5 "$1"; }

example_up_or_dead() { answers "$example_base/healthz" || ! kill -0 "$example_pid" 2>/dev/null; }

start_example() { # NAME DATABASE_URL
    local port
    port=$(free_port)
    example=$1
    example_base=http://127.0.0.1:$port
    # One file a start: examples of several steps run at once.
    example_out=$temporary/$1-$port.out
    PORT=$port DATABASE_URL=$2 ATLAS_TOKEN=$atlas_token "$target/debug/$1" >"$example_out" 2>&1 </dev/null &
    example_pid=$!
    # A step runs in a subshell: whatever ends it ends the server as well.
    trap 'kill "$example_pid" 2>/dev/null || true' EXIT
    until_true 60 example_up_or_dead || true
    kill -0 "$example_pid" 2>/dev/null && answers "$example_base/healthz" || {
        echo "$example did not come up:"
        cat "$example_out"
        return 1
    }
}

stop_example() { # SIGTERM; it must end by itself, with 0
    local status=0
    kill -TERM "$example_pid"
    until_true 15 example_is_gone || { echo "$example still runs 15 s after SIGTERM"; kill -KILL "$example_pid"; return 1; }
    wait "$example_pid" || status=$?
    trap - EXIT
    cat "$example_out"
    [[ $status -eq 0 ]] || { echo "$example exited with $status after SIGTERM"; return 1; }
    ! grep -i 'panicked' "$example_out"
}

example_is_gone() { [[ ! -e /proc/$example_pid || $(ps -o stat= -p "$example_pid") == Z* ]] && ! answers "$example_base/healthz"; }

atlas_example() { # DATABASE_URL: loads, answers what it prints, refuses a stranger, starts again without loading
    local line answer count=0 status
    start_example atlas "$1"
    grep -q 'Loaded 34258 rows' "$example_out" || { echo "the rows were not loaded"; cat "$example_out"; return 1; }
    while IFS= read -r line; do
        echo "$line"
        answer=$(bash -c "${line#"${line%%[![:space:]]*}"} -sSf --max-time 20")
        [[ $answer == \{*\} && $answer != *'"items":[]'* ]] || { echo "unexpected answer: ${answer:0:500}"; return 1; }
        count=$((count + 1))
    done < <(grep -E '^ *curl ' "$example_out")
    [[ $count -eq 3 ]] || { echo "atlas printed $count curl lines, not three"; return 1; }
    answers "$example_base/docs" || answers "$example_base/docs/"
    answers "$example_base/openapi.json"
    status=$(curl -s -o /dev/null -w '%{http_code}' -X DELETE "$example_base/countries/IS")
    [[ $status == 401 ]] || { echo "DELETE by a stranger was answered with $status"; return 1; }
    stop_example
    start_example atlas "$1"
    ! grep -q 'Loaded' "$example_out" || { echo "loaded a second time"; return 1; }
    stop_example
}

shop_example() { # DATABASE_URL: each line that it prints is answered as the sentence before it says
    local line about='' expected status count=0
    start_example shop "$1"
    # shellcheck disable=SC1090
    source <(grep -E '^ *export [A-Z_]+=[A-Za-z0-9._:/-]+$' "$example_out")
    while IFS= read -r line; do
        if [[ $line =~ ^\ *curl\  ]]; then
            expected=$(grep -oE '\([0-9]{3}' <<<"$about" | tr -d '(')
            status=$(eval "$line -sS -o $example_out.answer -w '%{http_code}' --max-time 20" | tail -c 3)
            echo "$about"$'\n'"$line"$'\n'"$status"
            [[ $status == "$expected" ]] || { echo "not as it says:"; cat "$example_out.answer"; return 1; }
            count=$((count + 1))
        fi
        about=$line
    done <"$example_out"
    [[ $count -ge 12 ]] || { echo "shop printed $count curl lines, fewer than twelve"; return 1; }
    grep -q 'raised rights.*ticket 4711' "$example_out" || { echo "raised rights are not on the record"; return 1; }
    stop_example
    start_example shop "$1"
    ! grep -q 'opened' "$example_out" || { echo "loaded a second time"; return 1; }
    stop_example
}

# The page must draw the operations with no network but this machine.
browser_reads_docs() { # DATABASE_URL
    local page
    start_example atlas "$1"
    page=$("$(browser)" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage \
        --user-data-dir="$temporary/browser" --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1' \
        --virtual-time-budget=15000 --dump-dom "$example_base/docs" 2>"$temporary/browser.err") || {
        tail -n 20 "$temporary/browser.err"
        return 1
    }
    for text in Atlas countries cities; do
        [[ $page == *$text* ]] || { echo "the page shows no '$text'"; echo "${page:0:3000}"; return 1; }
    done
    [[ $page == *opblock* ]] || { echo "the page drew no operation"; echo "${page:0:3000}"; return 1; }
    stop_example
}

# Orders appear in both windows, and across a cut connection, on both databases.
browser_follows_orders() {
    local database
    for database in "sqlite://$temporary/live.db" "$live_postgres"; do
        tests/browser --binary "$target/debug/shop" --database "$database" || return 1
    done
}

# What people's tools make of the documents, against both examples at a time.
generated_clients() { # FOLDER [--long]
    local atlas atlas_pid atlas_out shop_pid
    start_example atlas "sqlite://$1/clients-atlas.db"
    atlas=$example_base
    atlas_pid=$example_pid
    atlas_out=$example_out
    start_example shop "sqlite://$1/clients-shop.db"
    shop_pid=$example_pid
    # shellcheck disable=SC2064
    trap "kill $atlas_pid $shop_pid 2>/dev/null || true" EXIT
    # shellcheck disable=SC1090
    source <(grep -E '^ *export ACME_ADMIN=[A-Za-z0-9._-]+$' "$example_out")
    ATLAS=$atlas ATLAS_TOKEN=$atlas_token SHOP=$example_base SHOP_TOKEN=$ACME_ADMIN tests/clients/run "${@:2}"
    stop_example
    example=atlas
    example_base=$atlas
    example_pid=$atlas_pid
    example_out=$atlas_out
    trap 'kill "$example_pid" 2>/dev/null || true' EXIT
    stop_example
}

schemathesis() { # FOLDER POSTGRES_URL [--long]: over atlas, and over shop with the rights of two people on both databases
    local database
    start_example atlas "sqlite://$1/fuzzed-atlas.db"
    tests/schemathesis "${@:3}" "$example_base" "$atlas_token"
    stop_example
    for database in "sqlite://$1/fuzzed-shop.db" "$2"; do
        start_example shop "$database"
        # shellcheck disable=SC1090
        source <(grep -E '^ *export ACME_(ADMIN|MEMBER)=[A-Za-z0-9._-]+$' "$example_out")
        tests/schemathesis "${@:3}" "$example_base" "$ACME_ADMIN"
        tests/schemathesis "${@:3}" "$example_base" "$ACME_MEMBER"
        stop_example
    done
}
