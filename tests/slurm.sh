#!/bin/bash
# `longcast bench submit --slurm` and `bench merge` on a real Slurm: a cluster of one node in a temporary folder, an
# array of four jobs of which one is cancelled and one killed, both sent again alone. The table must be that of
# a single run, byte by byte: once with one folder for all jobs, once with a folder for each.
#
# It needs Debian and root, to install and to start the daemons.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "tests/slurm.sh: $*" >&2
    exit 1
}

set -o errtrace
trap 'echo "tests/slurm.sh: line $LINENO: $BASH_COMMAND failed" >&2' ERR

PROGRAM=$(realpath "${LONGCAST:-target/debug/longcast}")
[ -x "$PROGRAM" ] || fail "$PROGRAM is not there: cargo build"
[ "$(id -u)" = 0 ] || fail "the daemons of Slurm are started by root; run this as root"
missing=()
for package in slurmctld slurmd slurm-client munge; do
    dpkg -s "$package" > /dev/null 2>&1 || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
    command -v apt-get > /dev/null || fail "no Debian: ${missing[*]} cannot be installed"
    # Nothing is to start by itself while it is installed.
    apt-get update -qq > /dev/null
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" > /dev/null
fi

WORK=$(mktemp -d /tmp/longcast-slurm.XXXXXX)
pids=()
clean() {
    code=$?
    trap - EXIT INT TERM
    if [ $code != 0 ]; then
        tail -n 20 "$WORK"/*.log 2> /dev/null >&2 || true
    fi
    # Jobs first: they are no children of the daemons that are ended next.
    if [ -e "$WORK/started" ]; then
        timeout 10 scancel --user=root 2> /dev/null || true
    fi
    for ((index = ${#pids[@]} - 1; index >= 0; index--)); do
        kill "${pids[index]}" 2> /dev/null || true
    done
    for pid in "${pids[@]}"; do
        for _ in $(seq 50); do kill -0 "$pid" 2> /dev/null && sleep 0.1 || break; done
        kill -KILL "$pid" 2> /dev/null || true
    done
    rm -rf "$WORK"
    exit $code
}
trap clean EXIT
trap 'exit 130' INT TERM

# Waits for a command to succeed, for so many seconds.
within() {
    local seconds=$1
    shift
    for _ in $(seq $((seconds * 10))); do
        "$@" > /dev/null 2>&1 && return
        sleep 0.1
    done
    fail "after $seconds s still not: $*"
}

# A port that nothing listens on.
free_port() {
    local port
    for port in $(shuf -i 20000-60000 -n 50); do
        (: < "/dev/tcp/127.0.0.1/$port") 2> /dev/null || { echo "$port" && return; }
    done
    fail "no port is free"
}

# --- The cluster: munged, slurmctld and slurmd, all of them children of this shell.

cores=$(nproc)
node=$(hostname -s)
mkdir "$WORK/state" "$WORK/spool" "$WORK/munge"
chmod 755 "$WORK"
chmod 700 "$WORK/munge"
dd if=/dev/urandom of="$WORK/munge/key" bs=128 count=1 2> /dev/null
chmod 400 "$WORK/munge/key"
cat > "$WORK/slurm.conf" << CONF
ClusterName=longcast
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$WORK/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SchedulerType=sched/builtin
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1
SlurmdParameters=config_overrides
KillWait=5
InactiveLimit=0
StateSaveLocation=$WORK/state
SlurmdSpoolDir=$WORK/spool
SlurmctldPidFile=$WORK/slurmctld.pid
SlurmdPidFile=$WORK/slurmd.pid
NodeName=$node NodeAddr=127.0.0.1 CPUs=$cores RealMemory=4096 State=UNKNOWN
PartitionName=all Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
export SLURM_CONF=$WORK/slurm.conf

munged --foreground --force --socket="$WORK/munge/socket" --key-file="$WORK/munge/key" \
    --pid-file="$WORK/munge/pid" --log-file="$WORK/munge/log" --seed-file="$WORK/munge/seed" 2> "$WORK/munged.log" &
pids+=($!)
within 10 test -S "$WORK/munge/socket"
slurmctld -D > "$WORK/slurmctld.log" 2>&1 &
pids+=($!)
slurmd -D > "$WORK/slurmd.log" 2>&1 &
pids+=($!)
touch "$WORK/started"
idle() { [ "$(sinfo --noheader --format=%T)" = idle ]; }
within 20 idle

# --- What is sent.

cp suites/smoke.toml "$WORK/smoke.toml"
cd "$WORK"
nothing_runs() { local jobs; jobs=$(squeue --noheader --user=root) && [ -z "$jobs" ]; }

# The process of a part that the program has taken over from the script: not the one at work that it watches over.
process_of() {
    local process name
    for process in /proc/[0-9]*; do
        # Most are others, and a machine may have many.
        read -r name 2> /dev/null < "$process/comm" || continue
        [ "$name" = "${PROGRAM##*/}" ] || continue
        if [ "$(readlink "$process/exe" 2> /dev/null)" = "$PROGRAM" ] &&
            tr '\0' '\n' 2> /dev/null < "$process/environ" | grep -qx "SLURM_CONF=$SLURM_CONF" &&
            tr '\0' '\n' 2> /dev/null < "$process/environ" | grep -qx "SLURM_ARRAY_TASK_ID=$1" &&
            ! grep -qz '^LONGCAST_WATCHED_BY=' 2> /dev/null < "$process/environ"; then
            basename "$process"
            return
        fi
    done
    return 1
}

# One array of four: the first part is cancelled and the second killed as soon as they have recorded something, and
# both are sent again alone.
spread() {
    local way=$1 array log process part
    shift
    echo "--- $way" >&2
    "$PROGRAM" bench submit smoke.toml --slurm --jobs 4 --out "$way" --program "$PROGRAM" \
        --cpus 1 --memory 1 --hours 1 "$@" > "$way.sh"
    array=$(sbatch --parsable "$way.sh")

    log=smoke-${array}_0.log
    within 60 grep -q ' windows  fit ' "$log"
    scancel "${array}_0"
    within 20 grep -q 'what is recorded stays' "$log"
    log=smoke-${array}_1.log
    within 60 grep -q ' windows  fit ' "$log"
    process=$(process_of 1) || fail "part 1 of $way is no process: $(cat "$log")"
    kill -KILL "$process"

    within 90 nothing_runs
    for part in 0 1; do
        log=smoke-${array}_$part.log
        [ "$(grep -c ' windows  fit ' "$log")" -lt "$(tasks_of $part)" ] ||
            fail "part $part of $way had ended before it was stopped: $(cat "$log")"
    done
    # What is missing is the rest of both parts.
    local code=0
    "$PROGRAM" bench merge "${folders[@]}" --into "$way-first" > /dev/null 2> "$way-first.log" || code=$?
    [ $code = 1 ] || fail "a merge of parts that were stopped gives $code, not 1"
    grep -q ' 0 in conflict, 0 unreadable, ' "$way-first.log" || fail "$(cat "$way-first.log")"

    local again=() new old
    for part in 0 1; do again+=("$(sbatch --parsable --array=$part "$way.sh")"); done
    within 90 nothing_runs
    for part in 0 1; do
        log=smoke-${again[part]}_$part.log
        read -r new old < <(sed -n 's/^longcast: \([0-9]*\) recorded, \([0-9]*\) there already, 0 failed.*/\1 \2/p' "$log") ||
            fail "part $part of $way sent again alone did not end well: $(cat "$log")"
        if [ "$old" = 0 ] || [ $((new + old)) != "$(tasks_of $part)" ]; then
            fail "part $part of $way sent again alone: $new recorded and $old there of $(tasks_of $part)"
        fi
    done

    "$PROGRAM" bench merge "${folders[@]}" --into "$way" > "$way.md" 2> "$way.log" || fail "$(cat "$way.log")"
    cat "$way.log" >&2
    cmp single.md "$way.md"
    cmp single/smoke.md "$way/smoke.md"
}

tasks_of() {
    "$PROGRAM" bench smoke.toml --shard "$(($1 + 1))/4" --dry-run | wc -l
}

"$PROGRAM" bench smoke.toml --out single > single.md 2> single.log
folders=(shared)
spread shared
folders=(separate/part-{0,1,2,3})
spread separate --separate
echo "Slurm $(sbatch --version | cut -d' ' -f2): both ways give the table of a single run" >&2
