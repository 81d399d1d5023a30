# What tests/run installs, starts and stops.
# shellcheck shell=bash disable=SC2154

children=() # process ids of ours
postgres_folder=
redis_port=

postgres_program() { # the newest installed one, whether or not it is on PATH
    local found
    found=$(ls -d /usr/lib/postgresql/*/bin/"$1" /usr/pgsql-*/bin/"$1" /opt/homebrew/opt/postgresql*/bin/"$1" \
        2>/dev/null | sort -V | tail -n 1)
    [[ -n $found ]] || found=$(command -v "$1" || true)
    printf '%s' "$found"
}

browser() { command -v chromium || command -v chromium-browser || command -v google-chrome || true; }

missing_packages() {
    [[ -n $(postgres_program initdb) ]] || echo postgresql
    command -v redis-server >/dev/null || echo redis-server
    [[ -n $(browser) ]] || echo chromium
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3 python3-venv
    command -v jq >/dev/null || echo jq
    command -v curl >/dev/null || echo curl ca-certificates
    command -v cc >/dev/null || echo gcc libc6-dev
    command -v git >/dev/null || echo git
}

install_packages() {
    local packages
    require_tool cargo "https://rustup.rs"
    mapfile -t packages < <(missing_packages | tr ' ' '\n')
    [[ ${#packages[@]} -gt 0 ]] || { echo "nothing is missing"; return 0; }
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        echo "Missing: ${packages[*]}. On Debian or Ubuntu: sudo apt-get install ${packages[*]}"
        echo "(elsewhere the packages of these names; tests/run --embedded needs none of them)"
        return 1
    fi
    export DEBIAN_FRONTEND=noninteractive
    # A freshly installed server would start by itself: the usual Debian way to ask it not to.
    local policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod +x "$policy"
        # shellcheck disable=SC2064
        trap "rm -f $policy" EXIT
    fi
    apt-get update
    apt-get install -y --no-install-recommends "${packages[@]}"
    mapfile -t packages < <(missing_packages | tr ' ' '\n')
    [[ ${#packages[@]} -eq 0 ]] || { echo "still missing after installation: ${packages[*]}"; return 1; }
}

free_port() {
    local port
    for _ in $(seq 100); do
        port=$((20000 + RANDOM % 12000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            printf '%s' "$port"
            return 0
        fi
    done
    echo "found no free port" >&2
    return 1
}

as_postgres() { # root may not run it, anybody else runs it as themselves
    if [[ $EUID -eq 0 ]]; then (cd / && runuser -u postgres -- "$@"); else "$@"; fi
}

start_postgres() {
    local port initdb control folder=$temporary/postgres
    initdb=$(postgres_program initdb)
    control=$(postgres_program pg_ctl)
    mkdir "$folder"
    if [[ $EUID -eq 0 ]]; then chown postgres "$folder"; fi
    as_postgres "$initdb" -D "$folder/data" --auth=trust --no-sync -U postgres -E UTF8 --locale=C.UTF-8 >"$log" 2>&1
    cat >>"$folder/data/postgresql.conf" <<-SETTINGS
		fsync = off
		full_page_writes = off
		max_connections = 400
		shared_buffers = 64MB
		listen_addresses = '127.0.0.1'
		unix_socket_directories = '$folder'
	SETTINGS
    for _ in 1 2 3; do # another program may take the port between the look and the start
        port=$(free_port)
        if as_postgres "$control" -D "$folder/data" -w -t 60 -o "-p $port" -l "$folder/log" start >>"$log" 2>&1 </dev/null; then
            postgres_folder=$folder
            export TEST_POSTGRES_URL="postgres://postgres@127.0.0.1:$port"
            break
        fi
        cat "$folder/log" >>"$log"
    done
    [[ -n $postgres_folder ]]
    # Two databases: one that tests share, one that the atlas example fills.
    as_postgres "$(postgres_program psql)" -h 127.0.0.1 -p "$port" -U postgres -qc 'CREATE DATABASE tests' \
        -c 'CREATE DATABASE atlas' >>"$log" 2>&1
    atlas_postgres=$TEST_POSTGRES_URL/atlas
    TEST_POSTGRES_URL+=/tests
}

start_redis() {
    local folder=$temporary/redis
    mkdir "$folder"
    for _ in 1 2 3; do
        redis_port=$(free_port)
        redis-server --port "$redis_port" --bind 127.0.0.1 --save '' --appendonly no --dir "$folder" >>"$log" 2>&1 </dev/null &
        children+=($!)
        if until_true 10 redis_answers; then
            export TEST_REDIS_URL="redis://127.0.0.1:$redis_port"
            return 0
        fi
    done
    return 1
}

redis_answers() { [[ $(redis-cli -p "$redis_port" ping 2>/dev/null) == PONG ]]; }

# until_true SECONDS COMMAND...: asks ten times a second.
until_true() {
    local tries=$(($1 * 10))
    shift
    while ! "$@"; do
        tries=$((tries - 1))
        [[ $tries -gt 0 ]] || return 1
        sleep 0.1
    done
}

stop_services() {
    local child
    if [[ -n $postgres_folder ]]; then
        as_postgres "$(postgres_program pg_ctl)" -D "$postgres_folder/data" -m immediate -w stop >/dev/null 2>&1
    fi
    for child in "${children[@]}"; do
        kill "$child" 2>/dev/null
        wait "$child" 2>/dev/null
    done
}

# --- the atlas example ---

atlas_pid=
atlas_base=
atlas_token=token-of-tests

answers() { curl -sf -o /dev/null --max-time 5 "$1"; }

atlas_up_or_dead() { answers "$atlas_base/healthz" || ! kill -0 "$atlas_pid" 2>/dev/null; }

start_atlas() { # DATABASE_URL
    local port
    port=$(free_port)
    atlas_base=http://127.0.0.1:$port
    PORT=$port DATABASE_URL=$1 ATLAS_TOKEN=$atlas_token "$target/debug/examples/atlas" >"$temporary/atlas.out" 2>&1 </dev/null &
    atlas_pid=$!
    # A step runs in a subshell: whatever ends it ends the server as well.
    trap 'kill "$atlas_pid" 2>/dev/null || true' EXIT
    until_true 60 atlas_up_or_dead || true
    kill -0 "$atlas_pid" 2>/dev/null && answers "$atlas_base/healthz" || {
        echo "atlas did not come up:"
        cat "$temporary/atlas.out"
        return 1
    }
}

stop_atlas() { # SIGTERM; it must end by itself, with 0
    local status=0
    kill -TERM "$atlas_pid"
    until_true 15 atlas_is_gone || { echo "atlas still runs 15 s after SIGTERM"; kill -KILL "$atlas_pid"; return 1; }
    wait "$atlas_pid" || status=$?
    trap - EXIT
    cat "$temporary/atlas.out"
    [[ $status -eq 0 ]] || { echo "atlas exited with $status after SIGTERM"; return 1; }
    ! grep -i 'panicked' "$temporary/atlas.out"
}

atlas_is_gone() { [[ ! -e /proc/$atlas_pid || $(ps -o stat= -p "$atlas_pid") == Z* ]] && ! answers "$atlas_base/healthz"; }

atlas_example() { # DATABASE_URL: loads, answers what it prints, refuses a stranger, starts again without loading
    local line answer count=0 status
    start_atlas "$1"
    grep -q 'Loaded 34258 rows' "$temporary/atlas.out" || { echo "the rows were not loaded"; cat "$temporary/atlas.out"; return 1; }
    while IFS= read -r line; do
        echo "$line"
        answer=$(bash -c "${line#"${line%%[![:space:]]*}"} -sSf --max-time 20")
        [[ $answer == \{*\} && $answer != *'"items":[]'* ]] || { echo "unexpected answer: ${answer:0:500}"; return 1; }
        count=$((count + 1))
    done < <(grep -E '^ *curl ' "$temporary/atlas.out")
    [[ $count -eq 3 ]] || { echo "atlas printed $count curl lines, not three"; return 1; }
    answers "$atlas_base/docs" || answers "$atlas_base/docs/"
    answers "$atlas_base/openapi.json"
    status=$(curl -s -o /dev/null -w '%{http_code}' -X DELETE "$atlas_base/countries/IS")
    [[ $status == 401 ]] || { echo "DELETE by a stranger was answered with $status"; return 1; }
    stop_atlas
    start_atlas "$1"
    ! grep -q 'Loaded' "$temporary/atlas.out" || { echo "loaded a second time"; return 1; }
    stop_atlas
}

# The page must draw the operations with no network but this machine.
browser_reads_docs() {
    local page
    start_atlas "$1"
    page=$("$(browser)" --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage \
        --user-data-dir="$temporary/browser" --host-resolver-rules='MAP * ~NOTFOUND, EXCLUDE 127.0.0.1' \
        --virtual-time-budget=15000 --dump-dom "$atlas_base/docs" 2>"$temporary/browser.err") || {
        tail -n 20 "$temporary/browser.err"
        return 1
    }
    for text in Atlas countries cities; do
        [[ $page == *$text* ]] || { echo "the page shows no '$text'"; echo "${page:0:3000}"; return 1; }
    done
    [[ $page == *opblock* ]] || { echo "the page drew no operation"; echo "${page:0:3000}"; return 1; }
    stop_atlas
}

schemathesis() {
    start_atlas "$1"
    tests/schemathesis "$atlas_base" "$atlas_token"
    stop_atlas
}
