# Steps of tests/run: a heading and a time for each, the log's end where one fails, the counts at the end.
# shellcheck shell=bash disable=SC2034,SC2154

# run NAME COMMAND...: the command's output goes to a log of its own.
run() {
    local began=$SECONDS status=0
    step=$1
    log=$logs/${step// /-}.log
    shift
    printf '== %-34s' "$step"
    # The subshell keeps `set -e` working inside the command; `|| status` around it would switch it off.
    set +e
    (set -e; "$@") >"$log" 2>&1 </dev/null
    status=$?
    set -e
    printf '%4ss\n' $((SECONDS - began))
    if [[ $status -ne 0 ]]; then exit "$status"; fi
}

# beside NAME COMMAND...: the same, while other steps go on; `joined` waits for all of these and reports them.
beside_names=() beside_pids=()
beside() {
    local name=$1 file=$logs/${1// /-}.log
    shift
    (
        set +e
        (set -e; "$@") >"$file" 2>&1 </dev/null
        status=$?
        echo "$SECONDS" >"$file.ended"
        exit "$status"
    ) &
    beside_names+=("$name")
    beside_pids+=("$!")
    children+=("$!")
    echo "$SECONDS" >"$file.began"
}

joined() {
    local index status
    for index in "${!beside_names[@]}"; do
        status=0
        step=${beside_names[$index]}
        log=$logs/${step// /-}.log
        printf '== %-34s' "$step"
        wait "${beside_pids[$index]}" || status=$?
        printf '%4ss (beside others)\n' $(($(cat "$log.ended") - $(cat "$log.began")))
        if [[ $status -ne 0 ]]; then exit "$status"; fi
    done
}

# For what must happen in this shell, because it leaves a variable or a child behind.
begin_inline() {
    step=$1
    log=$logs/${step// /-}.log
    inline_began=$SECONDS
    printf '== %-34s' "$step"
}

end_inline() { printf '%4ss\n' $((SECONDS - inline_began)); }

skip() { printf '== %-34s skipped: %s\n' "$1" "$2"; }

require_tool() {
    command -v "$1" >/dev/null || { echo "tests/run needs $1: $2" >&2; exit 1; }
}

# The runners' own summary lines, then the sum.
summary() {
    local passed failed file
    counts
    [[ $passed -gt 0 ]] || { step="count the tests"; echo "no test was run"; exit 1; }
    printf '\nAll steps passed in %s s.\n' $((SECONDS - started))
    runner_lines
    printf '%s passed, %s failed\n' "$passed" "$failed"
}

runner_lines() {
    local file
    for file in "$logs/tests.log" "$logs/doc-tests.log"; do
        if [[ -f $file ]]; then grep -hE '^ *Summary \[|^test result:' "$file" | sed 's/^ *//' || true; fi
    done
}

# nextest: `Summary [ 1.2s] 90 tests run: 89 passed (1 slow), 1 failed`; cargo test: `test result: ok. 9 passed; 0 failed`.
counts() {
    passed=$(runner_lines | grep -oE '[0-9]+ passed' | awk '{sum += $1} END {print sum + 0}')
    failed=$(runner_lines | grep -oE '[0-9]+ (failed|timed out)' | awk '{sum += $1} END {print sum + 0}')
}

# On every way out: stops what was started, removes the folder, says what failed.
finish() {
    local status=$? passed failed
    trap - EXIT INT TERM
    set +e
    if [[ $status -ne 0 ]]; then
        printf '\nFAILED: %s (exit %s)\n' "$step" "$status"
        if [[ -n $log && -f $log ]]; then
            grep -hE '^ *(FAIL|TIMEOUT|SIGABRT|SIGSEGV) \[|^test .* FAILED$|^error(\[|:)' "$log" | sort -u | head -40
            printf -- '-- the end of its log:\n'
            tail -n "${LOG_LINES:-80}" "$log"
        fi
        runner_lines
        counts
        if [[ $((passed + failed)) -gt 0 ]]; then printf '%s passed, %s failed\n' "$passed" "$failed"; fi
    fi
    stop_services
    rm -rf "$temporary"
    exit "$status"
}
