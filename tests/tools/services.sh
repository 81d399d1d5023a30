# What tests/run installs, starts and stops.
# shellcheck shell=bash disable=SC2154

children=() # process ids of ours
postgres_folder=
redis_port=
pgbouncer_port=

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
    command -v pgbouncer >/dev/null || echo pgbouncer
    [[ -n $(browser) ]] || echo chromium
    command -v chromedriver >/dev/null || echo chromium-driver
    python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3 python3-venv
    command -v haproxy >/dev/null || [[ -x /usr/sbin/haproxy ]] || echo haproxy
    command -v nginx >/dev/null || [[ -x /usr/sbin/nginx ]] || echo nginx-light
    # The generators of tests/clients ask for Node.js 20 or newer.
    command -v npm >/dev/null || echo nodejs npm
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
    # One database that tests share, and one that each example fills.
    as_postgres "$(postgres_program psql)" -h 127.0.0.1 -p "$port" -U postgres -qc 'CREATE DATABASE tests' \
        -c 'CREATE DATABASE atlas' -c 'CREATE DATABASE shop' -c 'CREATE DATABASE kills' -c 'CREATE DATABASE live' \
        -c 'CREATE DATABASE rolling' -c 'CREATE DATABASE pooled' -c 'CREATE DATABASE kills_pooled' \
        -c 'CREATE DATABASE fuzzed' >>"$log" 2>&1
    atlas_postgres=$TEST_POSTGRES_URL/atlas
    shop_postgres=$TEST_POSTGRES_URL/shop
    rolling_postgres=$TEST_POSTGRES_URL/rolling
    kills_postgres=$TEST_POSTGRES_URL/kills
    live_postgres=$TEST_POSTGRES_URL/live
    fuzzed_postgres=$TEST_POSTGRES_URL/fuzzed
    TEST_POSTGRES_URL+=/tests
}

# start_pgbouncer MODE: a pooler in front of that PostgreSQL, which answers for the users and databases it is asked for.
start_pgbouncer() {
    local mode=$1 folder=$temporary/pgbouncer-$1 server=${TEST_POSTGRES_URL%/*}
    mkdir "$folder"
    for _ in 1 2 3; do
        pgbouncer_port=$(free_port)
        cat >"$folder/pgbouncer.ini" <<-SETTINGS
			[databases]
			* = host=127.0.0.1 port=${server##*:} user=postgres
			[pgbouncer]
			listen_addr = 127.0.0.1
			listen_port = $pgbouncer_port
			unix_socket_dir =
			auth_type = any
			pool_mode = $mode
			max_client_conn = 400
			default_pool_size = 40
		SETTINGS
        if [[ $EUID -eq 0 ]]; then chown -R postgres "$folder"; fi
        if [[ $EUID -eq 0 ]]; then
            (cd / && exec setpriv --reuid=postgres --regid=postgres --init-groups \
                pgbouncer --quiet "$folder/pgbouncer.ini") >>"$log" 2>&1 </dev/null &
        else
            pgbouncer --quiet "$folder/pgbouncer.ini" >>"$log" 2>&1 </dev/null &
        fi
        children+=($!)
        if until_true 10 pgbouncer_answers; then
            export "TEST_PGBOUNCER_${mode^^}_URL=postgres://postgres@127.0.0.1:$pgbouncer_port/tests"
            return 0
        fi
    done
    return 1
}

pgbouncer_answers() {
    "$(postgres_program psql)" "postgres://postgres@127.0.0.1:$pgbouncer_port/tests" -qc 'SELECT 1' >/dev/null 2>&1
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
